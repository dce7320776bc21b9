//! The life of a job: the handlers, the things that they are given, their output,
//! their ends, and the consequences.
//!
//! The handlers are small shell scripts that leave files in the test's folder.

use crate::support::control::{pid_in, script, start, start_script, ticks};
use crate::support::{
    Dir, alive, kill, log_lines_matching, logged_number, measuring, program, require_native, require_root,
    require_tool, under_qemu, wait_for_lines, wait_until,
};
use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

/// Waits until the log contains `text` `count` times.
#[track_caller]
fn wait_for_log(dir: &Dir, text: &str, count: usize) {
    wait_until(&format!("the log has {text:?} {count} times"), || {
        log_lines_matching(&dir.read("zigsvc.log"), text) >= count
    });
}

/// Returns the lines of a job's output in the log, without the prefixes.
fn output_of(dir: &Dir, job: u32) -> Vec<String> {
    let prefix = format!("] job {job}: ");
    let log = dir.read("zigsvc.log");
    log.lines().filter_map(|line| Some(line.split_once(&prefix)?.1.to_owned())).collect()
}

// ----- the kinds of handlers -------------------------------------------------

#[test]
fn the_log_handler_logs_each_job_once_and_in_order() {
    let dir = Dir::new();
    start(&dir, &[]);
    let jobs: Vec<String> = (1..=500).map(|number| format!("job number {number}")).collect();
    dir.append("queue", &(jobs.join("\n") + "\n"));
    wait_for_log(&dir, "processing job: ", 500);
    dir.zigsvc(&["stop"]).expect(0);
    let log = dir.read("zigsvc.log");
    let logged: Vec<&str> =
        log.lines().filter_map(|line| Some(line.split_once("[INFO] processing job: ")?.1)).collect();
    assert_eq!(logged, jobs);
    assert!(log.contains("daemon stopped, processed 500 total jobs"), "{log}");
}

#[test]
fn a_shell_job_is_run_by_the_shell() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    dir.append("queue", &format!("cd {} && for i in 1 2; do echo \"$i$1\" >> out; done\n", dir.as_arg()));
    assert_eq!(wait_for_lines(&dir, "out", 2), ["1", "2"]);
    // The log is written at the end of the turn that started the handler.
    wait_for_log(&dir, "processing job: cd ", 1);
}

#[test]
fn a_program_gets_the_text_as_its_one_argument() {
    let dir = Dir::new();
    let text = r#"a  b	$HOME "c" 'd' * \n %s ; exit 3 é"#;
    start_script(&dir, r#"printf '%s|' "$#" "$1" > new; mv new out"#, &[]);
    dir.append("queue", &format!("  {text} \r\n"));
    wait_until("the handler ran", || dir.path("out").exists());
    assert_eq!(dir.read("out"), format!("1|{text}|"));
}

#[test]
fn a_handler_as_an_array_gets_its_words_before_the_text() {
    let dir = Dir::new();
    let text = r#"printf '%s|' "$#" "$@" > new; mv new out"#;
    dir.write_executable("show", &format!("#!/bin/sh\ncd {}\n{text}\n", dir.as_arg()));
    // A text that begins with `-` is no option of a program that takes `--`.
    dir.write("zigsvc.conf", format!("handler = [\"{}/show\", \"-n\", \"--\"]\n", dir.as_arg()));
    start(&dir, &[]);
    dir.append("queue", "-rf /\n");
    wait_until("the handler ran", || dir.path("out").exists());
    assert_eq!(dir.read("out"), "3|-n|--|-rf /|");
    // The program of a folder gets the words before those of the job.
    fs::create_dir(dir.path("tools")).unwrap();
    fs::rename(dir.path("show"), dir.path("tools/show")).unwrap();
    dir.write("zigsvc.conf", format!("handler = [\"{}/tools\", \"--\"]\n", dir.as_arg()));
    fs::remove_file(dir.path("out")).unwrap();
    dir.zigsvc(&["reload"]).expect(0);
    dir.append("queue", "show -a b\n");
    wait_until("the program of the folder ran", || dir.path("out").exists());
    assert_eq!(dir.read("out"), "3|--|-a|b|");
    assert!(dir.zigsvc(&["check"]).expect(0).out.contains("/tools\", \"--\"]"));
}

#[test]
fn a_handler_gets_only_the_promised_environment() {
    let dir = Dir::new();
    let handler = script(&dir, "tr '\\0' '\\n' < /proc/$$/environ > new; mv new out");
    let mut command = dir.command();
    command.args(["-o", &handler, "start"]).env("SECRET", "1").env("LD_PRELOAD", "").env("IFS", "x");
    crate::support::finish(command, None).expect(0);
    dir.append("queue", "skipped blank first\n");
    wait_until("the handler ran", || dir.path("out").exists());
    let out = dir.read("out");
    let mut variables: Vec<&str> = out.lines().collect();
    variables.sort_unstable();
    let token = variables.pop().unwrap();
    let digits = token.strip_prefix("ZIGSVC_TOKEN=").unwrap();
    assert!(digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{token}");
    assert_eq!(
        variables,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ZIGSVC_ATTEMPT=1",
            "ZIGSVC_JOB=skipped blank first",
            "ZIGSVC_JOB_ID=1",
        ]
    );
}

#[test]
fn a_job_of_the_longest_length_reaches_its_handler_whole() {
    let dir = Dir::new();
    start_script(&dir, r#"printf '%s\n%s\n' "$1" "$ZIGSVC_JOB" > new; mv new out"#, &[]);
    let text = "x".repeat(1000);
    dir.append("queue", &format!("{text}\n"));
    wait_until("the handler ran", || dir.path("out").exists());
    assert_eq!(dir.read("out"), format!("{text}\n{text}\n"));
}

/// Makes a folder `tools` with one program that writes its arguments to `out`.
fn tools(dir: &Dir) -> String {
    fs::create_dir(dir.path("tools")).unwrap();
    let path = dir.as_arg();
    dir.write_executable(
        "tools/show",
        &format!("#!/bin/sh\nprintf '<%s>' \"$@\" >> {path}/out\necho >> {path}/out\n"),
    );
    format!("handler={}/tools", dir.as_arg())
}

#[test]
fn a_folder_runs_the_program_that_the_first_word_names_with_the_other_words() {
    let dir = Dir::new();
    let handler = tools(&dir);
    start(&dir, &[&handler]);
    dir.append("queue", "show one \t two;id $(id) 'three four'\nshow\n");
    assert_eq!(wait_for_lines(&dir, "out", 2), ["<one><two;id><$(id)><'three><four'>", "<>"]);
}

#[test]
fn a_folder_takes_128_words_at_most() {
    let dir = Dir::new();
    let handler = tools(&dir);
    start(&dir, &[&handler, "retries=0"]);
    let words = |count: usize| vec!["w"; count].join(" ");
    dir.append("queue", &format!("show {}\nshow {}\nshow end\n", words(127), words(200)));
    assert_eq!(wait_for_lines(&dir, "out", 2), ["<w>".repeat(127), "<end>".to_owned()]);
    wait_for_log(&dir, "[ERROR] job 2 is not run: a job has at most 128 words", 1);
    wait_for_log(&dir, "kept as dead", 1);
}

#[test]
fn a_folder_runs_nothing_that_is_not_a_program_in_it() {
    let dir = Dir::new();
    let handler = tools(&dir);
    dir.write_executable("outside", &format!("#!/bin/sh\necho outside >> {}/out\n", dir.as_arg()));
    dir.write("tools/data", "#!/bin/sh\n");
    fs::create_dir(dir.path("tools/folder")).unwrap();
    let (fifo, mode) = (dir.path("tools/fifo"), rustix::fs::Mode::from_raw_mode(0o777));
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo.to_str().unwrap(), mode).unwrap();
    let jobs =
        ["../outside", "./show", "/bin/sh", "tools/show", "..", ".", "missing", "data", "folder", "fifo"];
    let pid = start(&dir, &[&handler, "retries=0"]);
    dir.append("queue", &(jobs.join(" x\n") + " x\nshow end\n"));
    assert_eq!(wait_for_lines(&dir, "out", 1), ["<end>"]);
    wait_for_log(&dir, "kept as dead", jobs.len());
    let log = dir.read("zigsvc.log");
    for (index, job) in jobs.iter().enumerate() {
        let prefix = format!("] [ERROR] job {} ", index + 1);
        let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(&prefix)?.1)).collect();
        let (why, end) = match *job {
            "data" => ("is not executable", "failed with exit status 126 after "),
            "folder" | "fifo" | "." | ".." => {
                ("there is no such program", "failed with exit status 126 after ")
            }
            job if job.contains('/') => ("without /", "not started after "),
            _ => ("there is no such program", "not started after "),
        };
        assert_eq!(lines.len(), 2, "{job}: {lines:?}");
        assert!(lines[0].starts_with("is not run: ") && lines[0].contains(why), "{job}: {lines:?}");
        assert!(lines[1].starts_with(end), "{job}: {lines:?}");
        assert!(lines[1].contains("(attempt 1 of 1), kept as dead"), "{job}: {lines:?}");
    }
    assert_eq!(logged_number(&dir, pid, "dead"), jobs.len() as u64);
}

// ----- what a handler finds --------------------------------------------------

#[test]
fn the_oom_killer_takes_a_handler_first_also_where_another_user_runs_it() {
    if !require_root() {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = start_script(&dir, "cat /proc/self/oom_score_adj", &["user=65534", "group=65534"]);
    let score = format!("/proc/{daemon}/oom_score_adj");
    let own = fs::read_to_string(&score).unwrap();
    // A value that another process sets meanwhile stays, too.
    let changed = format!("{}\n", own.trim().parse::<i32>().unwrap() + 10);
    for (job, own) in [("job 1: 500", own), ("job 2: 500", changed)] {
        fs::write(&score, &own).unwrap();
        dir.zigsvc(&["queue", "--wait", "look"]).expect(0);
        wait_for_log(&dir, job, 1);
        assert_eq!(fs::read_to_string(&score).unwrap(), own);
    }
}

#[test]
fn a_handler_starts_in_a_clean_place() {
    let dir = Dir::new();
    dir.write_executable(
        "handler",
        &format!(
            "#!/bin/sh\npwd > {0}/cwd\ncd {0}\numask > umask\ncut -d' ' -f5 /proc/$$/stat > group\n\
             cut -d' ' -f6 /proc/$$/stat > session\necho $$ > pid\ncat /proc/self/oom_score_adj > oom\n\
             cat /proc/self/status > status\n\
             readlink /proc/$$/fd/0 > stdin\nls -1 /proc/$$/fd > fds\nmkdir done\n",
            dir.as_arg()
        ),
    );
    // A shell that ignores signals, has more descriptors and a strange mask.
    let mut command = program("/bin/sh");
    command
        .args([
            "-c",
            "trap '' PIPE HUP USR1; umask 0; exec 5</etc/passwd 9>&1 9>/dev/null; cd /usr; exec \"$@\"",
            "sh",
        ])
        .arg(crate::support::zigsvc().get_program())
        .args(crate::support::zigsvc().get_args())
        .args(["-d", dir.as_arg(), "-o"])
        .arg(format!("handler={}/handler", dir.as_arg()))
        .arg("start");
    let daemon = crate::support::finish(command, None).expect(0);
    let daemon: u32 = daemon.out.split(['(', ')']).nth(1).unwrap()["pid ".len()..].parse().unwrap();
    dir.append("queue", "look\n");
    wait_until("the handler ran", || dir.path("done").exists());
    assert_eq!(dir.read("cwd"), "/\n");
    assert_eq!(dir.read("umask"), "0022\n");
    assert_eq!(dir.read("group"), dir.read("pid"), "its own process group");
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(dir.read("session").trim(), session, "the daemon's session");
    let own: i32 =
        fs::read_to_string(format!("/proc/{daemon}/oom_score_adj")).unwrap().trim().parse().unwrap();
    assert!(
        dir.read("oom").trim().parse::<i32>().unwrap() > own,
        "{} for the daemon, {}",
        own,
        dir.read("oom")
    );
    let status = dir.read("status");
    let signals = status
        .lines()
        .filter(|line| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name)));
    for line in signals {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // QEMU ignores signal 32 for itself.
        let set = if under_qemu() { set & !(1 << 31) } else { set };
        assert_eq!(set, 0, "{line}");
    }
    assert_eq!(dir.read("stdin"), "/dev/null\n");
    // Descriptors from 10 up are the shell's own, for the script.
    let fds = dir.read("fds");
    let inherited: Vec<&str> = fds.lines().filter(|fd| fd.parse::<u32>().unwrap() < 10).collect();
    assert!(inherited.starts_with(&["0", "1", "2"]) && inherited.len() <= 4, "{inherited:?}");
}

#[test]
fn a_handler_inherits_no_descriptor() {
    let dir = Dir::new();
    // No shell: what ls has is what it was given, and the folder it reads.
    let handler = "handler=/bin/ls";
    if !require_tool("ls") {
        return;
    }
    start(&dir, &[handler]);
    dir.append("queue", "/proc/self/fd\n");
    wait_for_log(&dir, "] job 1: 2", 1);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(output_of(&dir, 1), ["0", "1", "2", "3"]);
}

// ----- workers ---------------------------------------------------------------

#[test]
fn eight_workers_run_eight_handlers_at_once() {
    let dir = Dir::new();
    fs::create_dir(dir.path("here")).unwrap();
    // Each waits for all others: fewer at once would never end.
    start_script(
        &dir,
        "mkdir here/$1\nuntil [ $(ls here | wc -l) -ge 8 ]; do sleep 0.02; done\nmkdir here/$1/done",
        &["workers=8"],
    );
    dir.append("queue", "a\nb\nc\nd\ne\nf\ng\nh\n");
    wait_until("all eight are done", || {
        ('a'..='h').all(|name| dir.path(&format!("here/{name}/done")).exists())
    });
}

#[test]
fn jobs_start_in_their_order_and_never_more_than_workers() {
    for workers in [1, 3] {
        let dir = Dir::new();
        fs::create_dir(dir.path("here")).unwrap();
        let body = "mkdir here/$1; ls here | wc -l >> counts; sleep 0.0$((ZIGSVC_JOB_ID % 3)); rmdir here/$1";
        start_script(&dir, body, &[&format!("workers={workers}")]);
        let jobs: Vec<String> = (1..=40).map(|number| format!("j{number}")).collect();
        dir.append("queue", &(jobs.join("\n") + "\n"));
        let counts = wait_for_lines(&dir, "counts", 40);
        assert!(counts.iter().all(|count| count.trim().parse::<u32>().unwrap() <= workers), "{counts:?}");
        wait_for_log(&dir, "processing job: ", 40);
        let log = dir.read("zigsvc.log");
        let started: Vec<&str> =
            log.lines().filter_map(|line| Some(line.split_once("processing job: ")?.1)).collect();
        assert_eq!(started, jobs);
    }
}

// ----- output ----------------------------------------------------------------

#[test]
fn output_is_logged_line_by_line_with_the_id() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    dir.append("queue", "echo first; echo second >&2; echo; printf 'no newline'\n");
    wait_for_log(&dir, "no newline", 2);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(output_of(&dir, 1), ["first", "second", "", "no newline"]);
}

#[test]
fn output_in_pieces_is_put_together() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    dir.append("queue", "for i in 1 2 3; do printf $i; sleep 0.1; done; echo\n");
    wait_for_log(&dir, "job 1: 123", 1);
    assert_eq!(output_of(&dir, 1), ["123"]);
}

#[test]
fn a_very_long_output_line_is_continued_and_no_byte_of_it_is_lost() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "log_max=0"]);
    dir.append(
        "queue",
        "head -c 3000 /dev/zero | tr '\\0' x; echo; echo after; head -c 1024 /dev/zero | tr '\\0' y; echo; \
         head -c 1023 /dev/zero | tr '\\0' z; echo 'ée'; head -c 900 /dev/zero; echo end\n",
    );
    wait_for_log(&dir, "job 1 done in ", 1);
    let log = dir.read("zigsvc.log");
    let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once("] job 1")?.1)).collect();
    let x = "x".repeat(1024);
    let expected = [
        " started".to_owned(),
        format!(": {x}"),
        format!("+ {x}"),
        format!("+ {}", "x".repeat(3000 - 2048)),
        ": after".to_owned(),
        format!(": {}", "y".repeat(1024)),
        // A character stays whole.
        format!(": {}", "z".repeat(1023)),
        "+ ée".to_owned(),
        format!(": {}", "\\x00".repeat(384)),
        format!("+ {}", "\\x00".repeat(384)),
        format!("+ {}end", "\\x00".repeat(900 - 768)),
    ];
    assert_eq!(lines[..expected.len()], expected);
}

#[test]
fn a_return_a_newline_or_both_are_one_end_of_a_line() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    dir.append("queue", "printf '10%%\\r20%%\\r\\nline\\n\\nlast\\r'; sleep 0.1; printf '\\nend\\r'\n");
    wait_for_log(&dir, "job 1 done in ", 1);
    assert_eq!(output_of(&dir, 1), ["10%", "20%", "line", "", "last", "end"]);
}

#[test]
fn output_and_text_cannot_forge_a_log_line() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    dir.append("queue", "printf 'a\\033[2J\\000\\r[2026-01-01T00:00:00Z] [INFO] forged\\177\\t\\303\\251\\n' #\u{1b}[31m\u{7f}\r\u{8}end\n");
    wait_for_log(&dir, "forged", 2);
    // A return ends a line, so the rest has the name of the job, too.
    assert_eq!(output_of(&dir, 1), ["a\\x1b[2J\\x00", "[2026-01-01T00:00:00Z] [INFO] forged\\x7f\té"]);
    wait_for_log(&dir, "#\\x1b[31m\\x7f\\x0d\\x08end", 1);
    let log = fs::read(dir.path("zigsvc.log")).unwrap();
    assert!(log.iter().all(|byte| !matches!(byte, 0..9 | 11..32 | 127)), "control bytes in the log");
}

#[test]
fn a_flood_of_output_does_not_stall_the_heartbeat() {
    let dir = Dir::new();
    dir.start(&["handler=shell", "interval=100ms", "log_max=100k", "workers=2"]);
    dir.append("queue", &format!("yes | head -c 5000000; mkdir {}/done\n", dir.as_arg()));
    let (mut beat, mut since, mut worst) = (String::new(), Instant::now(), Duration::ZERO);
    wait_until("the flood is over", || {
        let now = dir.read("zigsvc.health");
        worst = worst.max(since.elapsed());
        if now != beat {
            (beat, since) = (now, Instant::now());
        }
        dir.path("done").exists()
    });
    let limit = Duration::from_secs(if under_qemu() { 10 } else { 3 });
    assert!(worst < limit, "no heartbeat for {worst:?}");
}

#[test]
fn a_handler_that_closes_its_output_goes_on() {
    let _measuring = measuring();
    let dir = Dir::new();
    let pid = start(&dir, &["handler=shell"]);
    dir.append(
        "queue",
        &format!("echo out; exec >&- 2>&-; sleep 0.3; mkdir {}/done; exit 5\n", dir.as_arg()),
    );
    wait_for_log(&dir, "job 1: out", 1);
    // A closed pipe must not make the loop spin.
    let before = ticks(pid);
    wait_until("it went on", || dir.path("done").exists());
    assert!(ticks(pid) - before < 20, "busy waiting");
    wait_for_log(&dir, "job 1 failed with exit status 5", 1);
}

/// Clock ticks (mostly of 10 ms) that the process has used.
// ----- ends ------------------------------------------------------------------

#[test]
fn a_job_ends_with_its_leader_and_the_rest_of_its_group_is_killed() {
    let dir = Dir::new();
    // The child keeps the pipe open.
    let pid = start_script(&dir, "sleep 300 &\necho $! > child\necho bye", &[]);
    dir.append("queue", "first\nsecond\n");
    wait_for_log(&dir, "processing job: second", 1);
    wait_for_log(&dir, "job 2: bye", 1);
    wait_until("the child is gone", || !alive(pid_in(&dir, "child")));
    wait_until("both jobs have ended", || logged_number(&dir, pid, "jobs") == 2);
}

#[test]
fn a_child_that_left_the_session_neither_holds_its_job_nor_dies() {
    if !require_tool("setsid") {
        return;
    }
    let dir = Dir::new();
    let pid = start_script(
        &dir,
        "setsid sleep 300 &\nuntil [ \"$(cut -d' ' -f6 /proc/$!/stat)\" = $! ]; do :; done\necho $! > child",
        &[],
    );
    dir.append("queue", "first\n");
    let child = pid_in(&dir, "child");
    wait_until("the job has ended", || logged_number(&dir, pid, "jobs") == 1);
    assert!(alive(child));
    kill(child, "KILL");
}

#[test]
fn a_handler_that_kills_itself_has_failed() {
    let dir = Dir::new();
    let pid = start(&dir, &["handler=shell", "retries=0"]);
    dir.append("queue", "kill -SEGV $$\nkill -KILL $$\nkill -PIPE $$\nexit 200\n");
    wait_for_log(&dir, "job 1 killed by signal 11 after", 1);
    wait_for_log(&dir, "job 2 killed by signal 9 after", 1);
    wait_for_log(&dir, "job 3 killed by signal 13 after", 1);
    wait_for_log(&dir, "job 4 failed with exit status 200 after", 1);
    assert_eq!((logged_number(&dir, pid, "dead"), logged_number(&dir, pid, "failed")), (4, 4));
}

#[test]
fn what_a_killed_daemon_left_of_a_handler_ends_before_the_next_attempt() {
    let dir = Dir::new();
    let child = dir.path("child");
    let daemon = start(&dir, &["handler=shell"]);
    dir.append("queue", &format!("sleep 300 & echo $! > {0}.new; mv {0}.new {0}; wait\n", child.display()));
    wait_until("the handler has a child", || child.exists());
    let left = pid_in(&dir, "child");
    fs::remove_file(&child).unwrap();
    kill(daemon, "KILL");
    wait_until("the daemon is gone", || !alive(daemon));
    assert!(alive(left), "the kernel ends the leader only");
    start(&dir, &["handler=shell"]);
    wait_until("what was left is ended", || !alive(left));
    wait_for_log(&dir, "ended what was left of the handler of job 1", 1);
    wait_until("the job runs again", || child.exists());
    assert_ne!(pid_in(&dir, "child"), left);
}

#[test]
fn a_handler_dies_with_a_killed_daemon() {
    let dir = Dir::new();
    let pid = start_script(&dir, "echo $$ > pid; exec sleep 300", &[]);
    dir.append("queue", "x\n");
    let handler = pid_in(&dir, "pid");
    kill(pid, "KILL");
    wait_until("the handler is gone", || !alive(handler));
}

#[test]
fn a_stopped_handler_is_ended_too() {
    let dir = Dir::new();
    start_script(&dir, "echo $$ > pid; exec sleep 300", &["job_timeout=1s", "stop_timeout=10s", "retries=0"]);
    dir.append("queue", "x\n");
    kill(pid_in(&dir, "pid"), "STOP");
    wait_for_log(&dir, "job 1 timed out after", 1);
}

// ----- programs that cannot be executed --------------------------------------

/// Returns the value of `degraded`.
fn degraded(dir: &Dir) -> String {
    crate::support::control::status_word(dir, "degraded")
}

#[test]
fn jobs_wait_for_a_handler_that_cannot_be_executed_and_lose_no_attempt() {
    if !require_native("QEMU's user mode does not report a failed execve(2)") {
        return;
    }
    let cases = [
        ("missing", "", 0, "ENOENT"),
        ("plain", "#!/bin/sh\n", 0o644, "EACCES"),
        ("format", "\u{1}\u{2}\u{3} no program\n", 0o755, "ENOEXEC"),
        ("interpreter", "#!/no/such/interpreter\n", 0o755, "ENOENT"),
    ];
    for (name, content, mode, errno) in cases {
        let dir = Dir::new();
        if mode > 0 {
            dir.write_executable(name, content);
            fs::set_permissions(dir.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let path = dir.path(name).display().to_string();
        let mut command = dir.command();
        command.args(["-o", &format!("handler={path}"), "-o", "retries=0", "start"]);
        let started = crate::support::finish(command, None).expect(0);
        let warned = matches!(name, "missing" | "plain");
        assert_eq!(started.err.contains(errno), warned, "a warning at once: {started:?}");
        dir.append("queue", "one\ntwo\n");
        wait_until("the state names it", || degraded(&dir).contains("handler"));
        let line = format!("[ERROR] handler: {path}: execve: {errno} (");
        wait_for_log(&dir, &line, 1);
        // It is tried again, and that is not logged.
        std::thread::sleep(Duration::from_millis(1500));
        let log = dir.read("zigsvc.log");
        assert_eq!(log_lines_matching(&log, &line), 1, "{log}");
        assert!(!log.contains("processing job"), "{log}");
        // The handler comes, and nothing has lost an attempt.
        dir.write_executable(name, &format!("#!/bin/sh\necho $1 $ZIGSVC_ATTEMPT >> {}/out\n", dir.as_arg()));
        assert_eq!(wait_for_lines(&dir, "out", 2), ["one 1", "two 1"]);
        wait_until("the state goes", || !degraded(&dir).contains("handler"));
        wait_for_log(&dir, "[INFO] handler: works again", 1);
    }
}

#[test]
fn a_handler_that_a_reload_names_is_tried_at_once_and_a_cancelled_job_ends_the_state() {
    if !require_native("QEMU's user mode does not report a failed execve(2)") {
        return;
    }
    let dir = Dir::new();
    dir.write("zigsvc.conf", "handler = \"/no/such/handler\"\n");
    start(&dir, &[]);
    dir.append("queue", "one\n");
    wait_until("the state names it", || degraded(&dir).contains("handler"));
    dir.zigsvc(&["cancel", "1"]).expect(0);
    wait_until("no job waits", || !degraded(&dir).contains("handler"));
    dir.append("queue", "two\n");
    wait_until("the state is there again", || degraded(&dir).contains("handler"));
    // By now the next attempt is seconds away.
    std::thread::sleep(Duration::from_secs(3));
    let script = script(&dir, "echo $1 > new; mv new out").replace("handler=", "");
    dir.write("zigsvc.conf", format!("handler = \"{script}\"\n"));
    let since = Instant::now();
    dir.zigsvc(&["reload"]).expect(0);
    assert_eq!(wait_for_lines(&dir, "out", 1), ["two"]);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

#[test]
fn a_folder_that_is_gone_is_waited_for_and_a_word_that_names_no_program_is_dead_at_once() {
    if !require_native("QEMU's user mode does not report a failed execve(2)") {
        return;
    }
    let dir = Dir::new();
    let handler = tools(&dir);
    dir.write("tools/data", "#!/bin/sh\n");
    dir.write_executable("tools/format", "\u{1}\u{2}");
    dir.write_executable("tools/orphan", "#!/no/such/interpreter\n");
    start(&dir, &[&handler, "retries=5"]);
    for (job, exit) in [("missing", 127), ("data", 126), ("format", 126), ("orphan", 127), ("a/b", 127)] {
        dir.zigsvc(&["queue", "--wait", job]).expect(exit);
    }
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "(attempt 1 of 1), kept as dead"), 5);
    fs::rename(dir.path("tools"), dir.path("away")).unwrap();
    dir.append("queue", "show here\n");
    wait_until("the state names it", || degraded(&dir).contains("handler"));
    fs::rename(dir.path("away"), dir.path("tools")).unwrap();
    assert_eq!(wait_for_lines(&dir, "out", 1), ["<here>"]);
    wait_until("the state goes", || !degraded(&dir).contains("handler"));
}

#[test]
fn the_shell_takes_a_job_that_looks_like_an_option_and_an_unknown_command_is_the_jobs_own() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "retries=0"]);
    dir.zigsvc(&["queue", "--wait", "--", "-x"]).expect(127);
    dir.zigsvc(&["queue", "--wait", "/no/such/program"]).expect(127);
    assert_eq!(degraded(&dir), "none");
}

// ----- job_timeout -----------------------------------------------------------

#[test]
fn a_job_that_takes_too_long_gets_term() {
    let dir = Dir::new();
    start_script(
        &dir,
        "trap 'echo got term; exit 7' TERM; sleep 300 & echo $! > child; wait",
        &["job_timeout=200ms", "stop_timeout=60s", "retries=0"],
    );
    dir.append("queue", "slow\n");
    wait_for_log(&dir, "job 1 timed out after", 1);
    wait_for_log(&dir, "[WARN] job 1 exceeded job_timeout, stopping it", 1);
    assert_eq!(output_of(&dir, 1), ["got term"]);
    wait_until("its child is gone", || !alive(pid_in(&dir, "child")));
}

#[test]
fn a_job_that_ignores_term_is_killed_with_its_group() {
    let dir = Dir::new();
    let pid = start_script(
        &dir,
        "trap '' TERM; sleep 300 & echo $! > child; echo $$ > leader; while :; do wait; done",
        &["job_timeout=200ms", "stop_timeout=300ms", "retries=0"],
    );
    dir.append("queue", "slow\n");
    wait_for_log(&dir, "job 1 timed out after", 1);
    assert!(!alive(pid_in(&dir, "leader")));
    wait_until("its child is gone", || !alive(pid_in(&dir, "child")));
    assert_eq!(logged_number(&dir, pid, "dead"), 1);
}

#[test]
fn a_quick_job_is_not_touched_by_job_timeout() {
    let dir = Dir::new();
    let pid = start_script(&dir, "exit 0", &["job_timeout=5s"]);
    dir.append("queue", "a\nb\nc\n");
    wait_for_log(&dir, "processing job: c", 1);
    wait_until("all are done", || logged_number(&dir, pid, "jobs") == 3);
    assert_eq!(logged_number(&dir, pid, "failed"), 0);
}

// ----- retries ---------------------------------------------------------------

#[test]
fn a_failing_job_is_retried_with_growing_delays_and_then_dead() {
    let dir = Dir::new();
    let pid = start_script(
        &dir,
        "read up rest < /proc/uptime; echo $ZIGSVC_JOB_ID $ZIGSVC_ATTEMPT $up >> out; exit 9",
        &["retries=3", "retry_delay=50ms"],
    );
    dir.append("queue", "fails\n");
    wait_for_log(&dir, "job 1 failed with exit status 9 after", 4);
    let lines = dir.read("out");
    let attempts: Vec<Vec<&str>> = lines.lines().map(|line| line.split(' ').collect()).collect();
    let numbers: Vec<&str> = attempts.iter().map(|attempt| attempt[1]).collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    let at: Vec<f64> = attempts.iter().map(|attempt| attempt[2].parse().unwrap()).collect();
    for (pair, delay) in at.windows(2).zip([0.05, 0.1, 0.2]) {
        // /proc/uptime counts hundredths.
        assert!(pair[1] - pair[0] >= delay - 0.02, "{at:?}");
    }
    wait_for_log(&dir, "(attempt 1 of 4), next in 50 ms", 1);
    wait_for_log(&dir, "(attempt 2 of 4), next in 100 ms", 1);
    wait_for_log(&dir, "(attempt 3 of 4), next in 200 ms", 1);
    wait_for_log(&dir, "(attempt 4 of 4), kept as dead", 1);
    assert_eq!(
        (
            logged_number(&dir, pid, "dead"),
            logged_number(&dir, pid, "failed"),
            logged_number(&dir, pid, "jobs")
        ),
        (1, 4, 1)
    );
}

#[test]
fn a_job_that_works_at_last_is_done() {
    let dir = Dir::new();
    let pid = start_script(&dir, "[ $ZIGSVC_ATTEMPT = 3 ]", &["retries=5", "retry_delay=10ms"]);
    dir.append("queue", "third time\n");
    wait_until("it is done", || logged_number(&dir, pid, "jobs") == 1);
    assert_eq!((logged_number(&dir, pid, "dead"), logged_number(&dir, pid, "failed")), (0, 2));
}

#[test]
fn a_job_that_waits_for_its_retry_does_not_hold_up_others() {
    let dir = Dir::new();
    // More failing ones than fit into memory, before the good one.
    start_script(&dir, "[ $1 != bad ] && mkdir done", &["retry_delay=10m", "workers=4"]);
    dir.append("queue", &("bad\n".repeat(100) + "good\n"));
    wait_until("the good one ran", || dir.path("done").exists());
}

#[test]
fn without_retries_a_job_is_dead_at_once() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "retries=0"]);
    dir.append("queue", "false\n");
    wait_for_log(&dir, "job 1 failed with exit status 1 after", 1);
    wait_for_log(&dir, "(attempt 1 of 1), kept as dead", 1);
}

#[test]
fn dead_jobs_are_still_there_after_a_restart() {
    let dir = Dir::new();
    let pid = start(&dir, &["handler=shell", "retries=0"]);
    dir.append("queue", "false\nexit 3\ntrue\n");
    wait_until("all have ended", || logged_number(&dir, pid, "jobs") == 3);
    dir.zigsvc(&["stop"]).expect(0);
    let pid = start(&dir, &["handler=shell", "retries=0"]);
    assert_eq!((logged_number(&dir, pid, "dead"), logged_number(&dir, pid, "waiting")), (2, 0));
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    let pid = start(&dir, &["handler=shell", "retries=0"]);
    assert_eq!(logged_number(&dir, pid, "dead"), 2);
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "processing job: "), 3);
}

// ----- stops -----------------------------------------------------------------

#[test]
fn a_job_that_a_stop_ended_runs_again_as_its_first_attempt() {
    let dir = Dir::new();
    let body = "echo $1 $ZIGSVC_ATTEMPT >> out; [ -e go ] || exec sleep 300";
    start_script(&dir, body, &["workers=2", "retries=0"]);
    dir.append("queue", "a\nb\nc\n");
    wait_for_lines(&dir, "out", 2);
    dir.zigsvc(&["stop"]).expect(0);
    wait_for_log(&dir, "2 running jobs are stopped and will run again", 1);
    wait_for_log(&dir, "daemon stopped, processed 0 total jobs", 1);
    dir.write("go", "");
    start_script(&dir, body, &["workers=2", "retries=0"]);
    let mut again = wait_for_lines(&dir, "out", 5).split_off(2);
    again.sort_unstable();
    assert_eq!(again, ["a 1", "b 1", "c 1"]);
}

#[test]
fn a_job_that_a_kill_of_the_daemon_ended_has_used_its_attempt() {
    let dir = Dir::new();
    let body = "echo $1 $ZIGSVC_ATTEMPT >> out; [ -e go ] || exec sleep 300";
    let pid = start_script(&dir, body, &[]);
    dir.append("queue", "a\n");
    wait_for_lines(&dir, "out", 1);
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    dir.write("go", "");
    start_script(&dir, body, &[]);
    assert_eq!(wait_for_lines(&dir, "out", 2), ["a 1", "a 2"]);
    wait_for_log(&dir, "1 interrupted jobs run again", 1);
}

#[test]
fn a_stop_kills_what_ignores_term_at_stop_timeout() {
    let dir = Dir::new();
    let body = "trap '' TERM; sleep 300 & echo $! > child; echo $$ > leader; while :; do wait; done";
    start_script(&dir, body, &["stop_timeout=400ms"]);
    dir.append("queue", "stubborn\n");
    let (leader, child) = (pid_in(&dir, "leader"), pid_in(&dir, "child"));
    let began = Instant::now();
    dir.zigsvc(&["stop"]).expect(0);
    assert!(began.elapsed() >= Duration::from_millis(400), "it had {:?}", began.elapsed());
    assert!(!alive(leader));
    wait_until("its child is gone", || !alive(child));
    wait_for_log(&dir, "daemon stopped, processed 0 total jobs", 1);
}

#[test]
fn a_second_term_kills_at_once() {
    let dir = Dir::new();
    let body = "trap '' TERM; echo $$ > leader; while :; do sleep 300; done";
    let pid = start_script(&dir, body, &["stop_timeout=10m"]);
    dir.append("queue", "stubborn\n");
    let leader = pid_in(&dir, "leader");
    kill(pid, "TERM");
    wait_for_log(&dir, "SIGTERM received, stopping", 1);
    assert!(alive(leader) && alive(pid));
    kill(pid, "TERM");
    wait_until("both are gone", || !alive(pid) && !alive(leader));
    assert!(dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn a_job_that_ends_well_during_a_stop_is_done() {
    let dir = Dir::new();
    let body = "echo $1 >> out; [ $1 = next ] && exit 0\ntrap 'exit 0' TERM; sleep 300 & wait";
    start_script(&dir, body, &[]);
    dir.append("queue", "careful\n");
    wait_for_lines(&dir, "out", 1);
    // The trap is set after the line is written.
    wait_until("it waits", || {
        dir.zigsvc(&["stop"]).expect(0);
        let done = dir.read("zigsvc.log").contains("processed 1 total jobs");
        if !done {
            start_script(&dir, body, &[]);
            let before = dir.read("out").lines().count();
            wait_until("it runs again", || dir.read("out").lines().count() >= before.max(2));
        }
        done
    });
    let runs = dir.read("out").lines().count();
    start_script(&dir, body, &[]);
    dir.append("queue", "next\n");
    let out = wait_for_lines(&dir, "out", runs + 1);
    assert_eq!(out.last().unwrap(), "next", "{out:?}");
}

#[test]
fn nothing_is_started_during_a_stop() {
    let dir = Dir::new();
    let body = "trap '' TERM; echo $1 >> out; sleep 0.5; exit 0";
    let pid = start_script(&dir, body, &[]);
    dir.append("queue", "a\nb\n");
    wait_for_lines(&dir, "out", 1);
    kill(pid, "TERM");
    wait_until("it has stopped", || !alive(pid));
    assert_eq!(dir.read("out"), "a\n");
    start_script(&dir, body, &[]);
    assert_eq!(wait_for_lines(&dir, "out", 2), ["a", "b"]);
}
