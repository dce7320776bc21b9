//! Runs the sessions that README.md and `docs/` show, and compares each line of output.
//!
//! A session is a block that is fenced with the word `console`. A line that begins with `$ `
//! is typed by an ordinary user, one that begins with `# ` by root, and the lines up to the
//! next prompt are the output. All sessions of one page are one visit: they share the files,
//! the services and the two shells. A line `...` stands for any number of lines, and `...`
//! at the end of a line for its rest. Numbers that differ from run to run are compared as
//! numbers only: see [`normal`].
//!
//! A page has a machine of its own: namespaces for mounts, processes and the network, in
//! which `/run`, `/home`, `/etc` and the folders of `/var` belong to the page. It needs root.

use super::{lines, pages, text};
use crate::support::{
    Dir, Running, holds_within, patience, program, require, require_native, require_root, require_tool,
    zigsvc,
};
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Makes the machine; `$0` is the program. Root's shell then reads its standard input. The
/// shell of the user reads the FIFO, which is descriptor 9.
const MACHINE: &str = r#"
mount -t tmpfs -o mode=755 none /home
mkdir /home/etc /home/user /home/root
cp -a /etc/. /home/etc
mount --bind /home/etc /etc
rm -f /etc/zigsvc.conf
echo board > /etc/hostname
for folder in /run /var/log /var/spool /usr/local/sbin; do
    mount -t tmpfs -o mode=755 none $folder
done
cp "$0" /usr/local/sbin/zigsvc
chmod 755 /usr/local/sbin/zigsvc
chown 1000:1000 /home/user
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mkfifo /run/typed
cd /home/user
HOME=/home/user setpriv --reuid 1000 --regid 1000 --clear-groups sh < /run/typed &
exec 9> /run/typed
HOME=/home/root
export HOME
cd /home/root
echo ready
exec sh
"#;

/// The line that ends the output of a command.
const END: &str = "@@end of the command@@";

/// One command of a session, and the output that the page shows.
struct Step<'a> {
    number: usize,
    is_root: bool,
    typed: &'a str,
    shown: Vec<&'a str>,
}

/// Returns the steps of a page.
fn steps(page: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for (number, fence, line) in lines(page) {
        if fence != Some("console") {
            continue;
        }
        let prompt = [("$ ", false), ("# ", true)].into_iter().find_map(|(prompt, is_root)| {
            // The metrics for Prometheus begin like root's prompt.
            let comment = line.starts_with("# HELP ") || line.starts_with("# TYPE ");
            line.strip_prefix(prompt).filter(|_| !comment).map(|typed| (typed, is_root))
        });
        match (prompt, steps.last_mut()) {
            (Some((typed, is_root)), _) => steps.push(Step { number, is_root, typed, shown: Vec::new() }),
            (None, Some(step)) => step.shown.push(line),
            (None, None) => panic!("line {number} is output without a command"),
        }
    }
    steps
}

/// Returns true if the step only looks at something, so that it can be repeated until what it
/// waits for has happened.
fn only_looks(typed: &str) -> bool {
    ["cat ", "grep ", "ls", "tail ", "wc ", "zigsvc list", "zigsvc status", "zigsvc check"]
        .iter()
        .any(|start| typed.starts_with(start))
        && !typed.contains('>')
}

/// Returns the line with each number that differs from run to run replaced by `#`: PIDs,
/// times, durations, sizes and syncs.
fn normal(line: &str) -> String {
    let columns: Vec<_> = line.split_whitespace().collect();
    if let [name, state @ ("running" | "stopped" | "blocked" | "starting"), pid, _, restarts, rest @ ..] =
        &columns[..]
        && pid.bytes().all(|byte| byte.is_ascii_digit())
    {
        // A row of `status --all`: NAME STATE PID UP RESTARTS, the last end, the health.
        let rest: Vec<_> =
            rest.iter().map(|word| if word.ends_with('s') && word.len() < 4 { "#" } else { word }).collect();
        return format!("{name} {state} # # {restarts} {}", rest.join(" "));
    }
    let bytes = line.as_bytes();
    let (mut out, mut at) = (String::new(), 0);
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            let end = (at + 1..=bytes.len()).find(|end| line.is_char_boundary(*end)).unwrap();
            out.push_str(&line[at..end]);
            at = end;
            continue;
        }
        let is_part = |byte: &u8| byte.is_ascii_digit() || b".:-TZ".contains(byte);
        let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
        let time = &line[at..at + length];
        if time.len() >= 20 && time.ends_with('Z') && time.contains('T') {
            out.push('#');
            at += length;
            continue;
        }
        let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let (number, rest) = (&line[at..at + length], &line[at + length..]);
        let unit = [" ms", " s", " min", " h", " B", " KiB", " fsyncs", " and"].iter().find(|unit| {
            rest.strip_prefix(**unit)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
        });
        let named =
            ["pid ", "pid=", "ms=", "uptime=", "seq=", "boottime=", "fsyncs=", "spool_bytes=", "jobs="]
                .iter()
                .any(|name| out.ends_with(name));
        // `list done`: ID STATE ATTEMPT EXIT MS TEXT.
        let words: Vec<_> = out.split(' ').collect();
        let is_duration = words.len() == 5 && ["done", "dead", "cancelled"].contains(&words[1]);
        let is_clock = line.len() == 10 && number.len() == 10;
        out.push_str(if unit.is_some() || named || is_duration || is_clock { "#" } else { number });
        at += length;
        if let Some(unit @ (&" B" | &" KiB")) = unit {
            out.push_str(" size");
            at += unit.len();
        }
    }
    out
}

/// Returns true if the lines are those that a page shows.
fn matches(shown: &[&str], found: &[String]) -> bool {
    match (shown.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        (Some((line, rest)), Some((there, others))) => {
            let same = match line.strip_suffix("...") {
                Some(start) => normal(there).starts_with(&normal(start)),
                None => normal(there) == normal(line),
            };
            same && matches(rest, others)
        }
        _ => false,
    }
}

/// The machine of one page.
struct Machine {
    typed: ChildStdin,
    lines: Receiver<String>,
    _shells: Running,
    _dir: Dir,
}

impl Machine {
    /// Makes it; `None` if that is not possible here, after a note.
    #[track_caller]
    fn new() -> Option<Self> {
        let dir = Dir::new();
        std::fs::set_permissions(dir.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = dir.copy_program(zigsvc().get_program(), "zigsvc");
        let mut command = program("unshare");
        command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]);
        command
            .args(["sh", "-ec", MACHINE])
            .arg(copy)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut shells = Running::new(command);
        let typed = shells.0.stdin.take().unwrap();
        let output = BufReader::new(shells.0.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut machine = Self { typed, lines, _shells: shells, _dir: dir };
        let ready = machine.lines.recv_timeout(patience()).is_ok_and(|line| line == "ready");
        if ready {
            machine.run(true, "exec 2>&1");
            machine.run(false, "exec 2>&1");
        }
        require(ready, "namespaces cannot be made").then_some(machine)
    }

    /// Runs one command in the shell of root or of the user, and returns its output.
    #[track_caller]
    fn run(&mut self, is_root: bool, typed: &str) -> Vec<String> {
        let whole = format!("{{ {typed}\n}} < /dev/null 9>&-\nprintf '\\n%s\\n' '{END}'\n");
        let text = if is_root { whole } else { format!("cat >&9 <<'{END}.'\n{whole}{END}.\n") };
        self.typed.write_all(text.as_bytes()).unwrap();
        let deadline = Instant::now() + patience();
        let mut found = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line == END => break,
                Ok(line) => found.push(line),
                Err(_) => panic!("{typed}: has not ended; {found:#?}"),
            }
        }
        // The mark begins a line of its own.
        if found.last().is_some_and(String::is_empty) {
            found.pop();
        }
        found
    }
}

/// Runs every session of a page.
#[track_caller]
fn visit(name: &str) {
    let page = text(name);
    let steps = steps(&page);
    let tools = ["unshare", "mount", "setpriv", "socat"];
    if steps.is_empty()
        || !require_root()
        || !require_native("the sessions need namespaces")
        || !tools.iter().all(|tool| require_tool(tool))
    {
        return;
    }
    let Some(mut machine) = Machine::new() else { return };
    for Step { number, is_root, typed, shown } in steps {
        let mut found = machine.run(is_root, typed);
        if only_looks(typed) {
            holds_within(patience(), || {
                if !matches(&shown, &found) {
                    std::thread::sleep(Duration::from_millis(50));
                    found = machine.run(is_root, typed);
                }
                matches(&shown, &found)
            });
        }
        assert!(
            matches(&shown, &found),
            "{name}:{number}: {typed}\n--- shown\n{}\n--- found\n{}\n",
            shown.join("\n"),
            found.join("\n")
        );
    }
}

/// A test for each page that has sessions, and one that misses none.
macro_rules! visits {
    ($($test:ident $name:literal;)*) => {
        $(
            #[test]
            fn $test() {
                visit($name);
            }
        )*

        #[test]
        fn every_page_with_a_session_is_visited() {
            let visited = [$($name),*];
            for name in pages() {
                let page = text(&name);
                let has_session = lines(&page).iter().any(|(_, fence, _)| *fence == Some("console"));
                assert_eq!(has_session, visited.contains(&name.as_str()), "{name}");
            }
        }
    };
}

visits! {
    the_readme "README.md";
    the_commands "docs/commands.md";
    the_jobs "docs/jobs.md";
    the_control_socket "docs/control.md";
    the_log "docs/log.md";
    the_supervision "docs/supervision.md";
    the_companions "docs/companions.md";
    the_collector "docs/collector.md";
    the_configuration "docs/configuration.md";
    the_limits "docs/limits.md";
}

#[test]
fn what_differs_from_run_to_run_is_compared_as_a_number() {
    for (line, wanted) in [
        ("zigsvc: jobs started (pid 617)", "zigsvc: jobs started (pid #)"),
        ("[2026-11-24T19:51:41Z] reading 1: 21.1 C", "[#] reading 1: 21.1 C"),
        ("  spool      9 fsyncs, 520 B written", "  spool      # fsyncs, # size written"),
        ("1 done 1 0 4 echo 7", "1 done 1 0 # echo 7"),
        ("jobs: running (pid 617), up 12 s", "jobs: running (pid #), up # s"),
        ("1795358034", "#"),
        ("jobs  running  829     1s   1        KILL 1s      fresh", "jobs running # # 1 KILL # fresh"),
        ("ok id=3", "ok id=3"),
        ("exit status 3", "exit status 3"),
    ] {
        assert_eq!(normal(line), wanted);
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(matches(&["a", "...", "z"], &lines("a\nb\nc\nz")));
    assert!(matches(&["ok pid=1 ..."], &lines("ok pid=2 more")));
    assert!(!matches(&["a", "..."], &lines("b")) && !matches(&["a"], &lines("a\nb")));
}
