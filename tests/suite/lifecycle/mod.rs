//! A service, from its start to its end.

mod background;
mod foreground;
mod health;
mod notify;
mod process;
