//! The control socket.

mod access;
mod hostile;
mod language;
mod minute;
mod regressions;
mod requests;
mod steer;
