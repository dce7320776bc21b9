//! The manual page, as roff with the macros of man(7).

use std::fmt::Write;
use zigsvc::cli::COMMANDS;
use zigsvc::cli::command_line::Command;
use zigsvc::proto::config::Config;
use zigsvc::proto::config::keys::{KEYS, Key};
use zigsvc::service::lifecycle::exit;
use zigsvc::util::path::Path;
use zigsvc::util::text::Writer;

/// Of the page, which is not that of a build: the same lists give the same page.
const DATE: &str = "2026-11-30";

/// Longest line of prose in the source.
const COLUMNS: usize = 78;

const SYNOPSIS: &str = ".SH SYNOPSIS
.B zigsvc
.RB [ \\-c
.IR FILE ]
.RB [ \\-d
.IR DIR ]
.RB [ \\-o
.IR KEY = VALUE ]...
.I COMMAND
.RI [ ARG ]...
";

const DESCRIPTION: &[&str] = &[
    "zigsvc is one static program for small Linux systems. It runs services in the background or under an init \
     system: `jobs`, which runs jobs from a queue without losing one; `supervisor`, which keeps services and any \
     other program running; and small companions beside them. Where a command takes a SERVICE, `jobs` is meant if \
     none is named.",
    "The lock of the PID file alone decides whether a service runs, and which process gets a signal: a stale, empty \
     or foreign PID file never keeps a service from starting, and no process is signalled because its number is in \
     a file.",
    "The options -c, -d and -o may also stand after the command. `COMMAND --help` shows the help of a command.",
];

const OPTIONS: &[(&str, &str)] = &[
    ("-c FILE", "Read the configuration from FILE."),
    (
        "-d DIR",
        "Put every file below DIR: `zigsvc.conf` (if there), `zigsvc.pid`, `zigsvc.sock`, `zigsvc.log`, \
         `zigsvc.health`, `queue` and `spool`. `start`, `run` and `restart` make a missing DIR.",
    ),
    ("-o KEY=VALUE", "Set one key of the configuration, also across a reload. May be repeated."),
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "TERM, INT, QUIT",
        "Stop gracefully; a second one, at once. QUIT has the supervisor leave its services running.",
    ),
    ("HUP", "Read the configuration again. A wrong one changes nothing."),
    ("USR1", "Rotate the log, or reopen it if it was moved away."),
    ("USR2", "Write the status into the log."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("ZIGSVC_DIR", "The value of `-d` where the command line has none."),
    ("XDG_STATE_HOME, HOME", "The place of the files of a user who is not root."),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, JOURNAL_STREAM",
        "For `run`: the protocols of sd_notify(3) and of systemd's journal.",
    ),
    ("COLUMNS", "The width of `help`, up to 80. Without it the width is that of the terminal."),
    (
        "NO_COLOR, TERM",
        "With NO_COLOR, or if TERM is `dumb`, no text is coloured. Only text on a terminal is.",
    ),
    (
        "ZIGSVC_JOB, ZIGSVC_JOB_ID, ZIGSVC_ATTEMPT, ZIGSVC_TOKEN",
        "Set for a handler: the text of its job, the id, the number of the attempt, and a token by which commands \
         in the job find their service.",
    ),
];

/// Commands, each after a sentence that says what they do.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "Start the service with the shell as handler, run a job, and see its output and its status:",
        "zigsvc -o handler=shell start\nzigsvc queue --wait \"tar -czf /mnt/etc.tgz /etc\"",
    ),
    ("Try the jobs that failed once more:", "zigsvc list dead\nzigsvc retry dead"),
    (
        "Keep a program running, with its output in a log that rotates:",
        "zigsvc -d /run/poll run supervisor -- /usr/bin/poll-meters",
    ),
    (
        "Log the output of any program in at most 4 files of 64 KiB:",
        "poll-meters 2>&1 | zigsvc log -s 64k -n 3 -t iso /var/log/meters.log",
    ),
    ("In /etc/inittab, for BusyBox init:", "::respawn:/usr/sbin/zigsvc run supervisor"),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/zigsvc.conf", "The configuration. It may be missing."),
    ("/etc/default/zigsvc", "Settings of the init script: which services, with which options."),
];

const PLACES: &[(&str, &str)] = &[
    ("pid_file", "The PID file. Missing or empty means stopped, filled and not locked means died."),
    ("socket", "The control socket."),
    ("health_file", "The heartbeat."),
    ("log_file", "The log; a number after it is an older one."),
    ("queue_file", "Each line that is appended to it becomes a job."),
    ("spool", "The journal of the jobs."),
];

/// Returns the whole page; `sample` is the configuration with its comments.
pub(crate) fn render(sample: &str) -> String {
    let mut page = String::new();
    let version = env!("CARGO_PKG_VERSION");
    page.push_str(
        ".\\\" Written by tests/suite/packaging/manual from the lists of commands and keys: edit those.\n",
    );
    let _ = writeln!(page, ".TH ZIGSVC 8 \"{DATE}\" \"zigsvc {version}\" \"System Administration\"");
    page.push_str(".SH NAME\nzigsvc \\- background services for small Linux systems\n");
    page.push_str(SYNOPSIS);
    page.push_str(".SH DESCRIPTION\n");
    paragraphs(&mut page, DESCRIPTION);
    for (name, text) in OPTIONS {
        item(&mut page, name, text);
    }
    page.push_str(".SH COMMANDS\n");
    COMMANDS.iter().for_each(|command| describe(&mut page, &command));
    page.push_str(".SH CONFIGURATION\n");
    configuration(&mut page, sample);
    page.push_str(".SH SIGNALS\n");
    for (name, text) in SIGNALS {
        item(&mut page, name, text);
    }
    page.push_str(".SH FILES\n");
    paragraphs(
        &mut page,
        &[
            "These are root's; those of another service than `jobs` are beside them, with its name: `zigsvc-hub.pid`. \
         Those of other users are in `$XDG_STATE_HOME/zigsvc` or `~/.local/state/zigsvc`.",
        ],
    );
    for (name, text) in FILES {
        item(&mut page, name, text);
    }
    for (key, text) in PLACES {
        let path = default(key);
        item(&mut page, path.trim_matches('"'), text);
    }
    page.push_str(".SH ENVIRONMENT\n");
    for (name, text) in ENVIRONMENT {
        item(&mut page, name, text);
    }
    page.push_str(".SH EXIT STATUS\n");
    exit_status(&mut page);
    page.push_str(".SH EXAMPLES\n");
    for (text, lines) in EXAMPLES {
        paragraphs(&mut page, &[text]);
        page.push_str(".PP\n.nf\n.RS\n");
        lines.lines().for_each(|line| push_line(&mut page, &roff(line)));
        page.push_str(".RE\n.fi\n");
    }
    page.push_str(".SH SEE ALSO\n");
    page.push_str(".BR systemd (1),\n.BR fcntl (2),\n.BR sd_notify (3),\n.BR daemon (7),\n.BR init (8)\n");
    paragraphs(
        &mut page,
        &[
            "The pages in `docs` beside README.md, in `/usr/share/doc/zigsvc` where a package put them: jobs and the \
         promise, the control socket, the log, supervision, init systems.",
        ],
    );
    page
}

/// Returns every key with its default, as `check` prints it.
pub(crate) fn defaults() -> Vec<(&'static str, String)> {
    KEYS.iter().map(|key| (key.name, default(key.name))).collect()
}

fn default(name: &str) -> String {
    let mut config = Box::new(Config::EMPTY);
    config.reset(&Path::empty());
    written(|out| key(name).emit(&mut *config, out))
}

fn key(name: &str) -> &'static Key {
    KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("there is no key {name}"))
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
    let mut bytes = [0; 4096];
    let mut out = Writer::new(&mut bytes);
    write(&mut out);
    String::from_utf8(out.as_bytes().to_vec()).unwrap()
}

/// Writes a command: its line, its summary, and its details as items and paragraphs.
fn describe(page: &mut String, command: &Command) {
    let _ = writeln!(page, ".SS \"{}\"", quoted(format!("{} {}", command.name, command.args).trim_end()));
    let summary = sentence(command.summary);
    fill(page, &summary);
    for part in parts(command.details) {
        match part {
            (Some(head), text) => item(page, &head, &text),
            (None, text) => paragraphs(page, &[&text]),
        }
    }
}

/// Returns the lines of `details`. A line with two blanks in it is an item, and any other line a
/// paragraph.
fn parts(details: &str) -> Vec<(Option<String>, String)> {
    let part = |line: &str| match line.split_once("  ") {
        Some((head, text)) => (Some(head.to_owned()), text.trim_start().to_owned()),
        None => (None, line.to_owned()),
    };
    details.lines().map(part).collect()
}

/// Writes the comments of the sample about each group of keys, and the text of the list of
/// keys about each key.
fn configuration(page: &mut String, sample: &str) {
    let mut comment = String::new();
    let mut seen = 0;
    for line in sample.lines().chain([""]) {
        if let Some(title) = line.strip_prefix("# --- ") {
            let _ = writeln!(page, ".SS \"{}\"", quoted(title.trim_end_matches(['-', ' '])));
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(if comment.is_empty() { "" } else { " " });
            comment.push_str(text);
        } else if line == "#" || line.is_empty() {
            let text = std::mem::take(&mut comment);
            let about_itself =
                text.starts_with("Every key is shown") || text.starts_with("/etc/zigsvc.conf: ");
            if about_itself && text.starts_with('/') {
                paragraphs(page, &[&format!("`/etc/zigsvc.conf` is {}", text.split_once(": ").unwrap().1)]);
            } else if about_itself {
                paragraphs(
                    page,
                    &[&text.replace("Every key is shown, commented out, with its default. ", "")],
                );
            } else if !text.is_empty() {
                paragraphs(page, &[&text]);
            }
        } else if let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            let text = std::mem::take(&mut comment);
            if !text.is_empty() {
                paragraphs(page, &[&text]);
            }
            let key = key(name);
            let allowed = written(|out| key.describe(out));
            let restart = if key.reloadable { "" } else { " A change needs a restart." };
            item(page, name, &format!("Allowed: {allowed}.{restart} Default: `{}`", default(name)));
            seen += 1;
        }
    }
    assert_eq!(seen, KEYS.len(), "the sample has not every key");
}

fn exit_status(page: &mut String) {
    for (code, text) in [
        (exit::OK, "Done, or nothing to do."),
        (exit::FAILED, "It failed, or was refused; `doctor` has warnings."),
        (exit::USAGE, "The command line is wrong."),
        (exit::NO_PRIVILEGE, "A right is missing."),
        (exit::CONFIG, "The configuration is wrong."),
        (exit::NOT_RUNNING, "The service does not run."),
    ] {
        item(page, &code.to_string(), text);
    }
    paragraphs(
        page,
        &[
            "`status` has codes of its own: 0 running, 1 died, 3 stopped, 4 unknown. `queue --wait` ends with the \
         status of the job.",
        ],
    );
}

pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn paragraphs(page: &mut String, texts: &[&str]) {
    for text in texts {
        // Nothing separates what is separate already.
        if !page.ends_with("\"\n") && !page.lines().last().unwrap_or_default().starts_with(".SH") {
            page.push_str(".PP\n");
        }
        fill(page, text);
    }
}

fn item(page: &mut String, head: &str, text: &str) {
    let _ = writeln!(page, ".TP\n.B {}", roff(head));
    fill(page, text);
}

/// Writes prose in lines that are not too long.
fn fill(page: &mut String, text: &str) {
    let mut line = String::new();
    for word in marked(text).split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > COLUMNS {
            push_line(page, &line);
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    push_line(page, &line);
}

/// Writes a line of text; one that begins like a macro is none.
fn push_line(page: &mut String, line: &str) {
    page.push_str(if line.starts_with(['.', '\'']) { "\\&" } else { "" });
    page.push_str(line);
    page.push('\n');
}

/// Returns `text` in roff, with the text in backquotes in bold.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for (index, part) in text.split('`').enumerate() {
        marked.push_str(match index {
            0 => "",
            _ if index % 2 == 1 => "\\fB",
            _ => "\\fR",
        });
        marked.push_str(&roff(part));
    }
    marked
}

/// Returns the text in roff, where every character stands for itself.
fn roff(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            '\'' => escaped.push_str("\\(aq"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Returns the text as [`roff`] does, for a place inside quotes.
fn quoted(text: &str) -> String {
    roff(text).replace('"', "\\(dq")
}
