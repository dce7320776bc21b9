//! The service `hub` and its client `chat`, as their users meet them.

use crate::support::control::{Client, connect_as, require_users};
use crate::support::random::Random;
use crate::support::{
    Dir, finish, heartbeat, holds_within, kill, log_lines_matching, not_running, outcome, program,
    require_native, require_tool, wait_until,
};
use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

const LOG: &str = "zigsvc-hub.log";

fn start(dir: &Dir) -> u32 {
    dir.start_service("hub", &["log_max=0", "interval=100ms"])
}

fn socket(dir: &Dir) -> PathBuf {
    dir.path("zigsvc-hub.sock")
}

fn joined(dir: &Dir) -> usize {
    log_lines_matching(&dir.read(LOG), " joined, ")
}

/// Connects a client, and waits until the hub knows it: from now on it gets the lines that
/// others write.
#[track_caller]
fn join(dir: &Dir) -> Client {
    let before = joined(dir);
    let client = Client::over(UnixStream::connect(socket(dir)).unwrap());
    wait_until("it has joined", || joined(dir) > before);
    client
}

/// Returns this process's line as others get it.
fn from_us(text: &str) -> String {
    format!("[pid {}] {text}", std::process::id())
}

/// Starts `zigsvc chat` with pipes on all sides, and waits until it has joined.
#[track_caller]
fn chat(dir: &Dir) -> Child {
    let before = joined(dir);
    let mut command = dir.command();
    command.arg("chat").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("chat has joined", || joined(dir) > before);
    child
}

// ----- lines -------------------------------------------------------------------

#[test]
fn two_clients_see_each_others_lines_with_the_pid_of_the_sender() {
    let dir = Dir::new();
    start(&dir);
    let (mut first, mut second) = (join(&dir), join(&dir));
    first.send("hello\n");
    assert_eq!(second.line(), from_us("hello"));
    second.send("hello yourself\n");
    // A client does not get its own line.
    assert_eq!(first.line(), from_us("hello yourself"));
}

#[test]
fn a_line_goes_to_all_others_once_and_in_order() {
    let dir = Dir::new();
    start(&dir);
    let mut sender = join(&dir);
    let mut readers: Vec<Client> = (0..5).map(|_| join(&dir)).collect();
    for chunk in 0..20 {
        let lines: String = (0..10).map(|line| format!("{}\n", chunk * 10 + line)).collect();
        sender.send(&lines);
        for reader in &mut readers {
            let expected: Vec<String> =
                (0..10).map(|line| from_us(&(chunk * 10 + line).to_string())).collect();
            assert_eq!(reader.lines(10), expected);
        }
    }
}

#[test]
fn a_line_that_comes_in_single_bytes_is_one_line() {
    let dir = Dir::new();
    start(&dir);
    let (mut sender, mut reader) = (join(&dir), join(&dir));
    for byte in b"slow but whole\r\n" {
        sender.send([*byte]);
    }
    assert_eq!(reader.line(), from_us("slow but whole"));
}

#[test]
fn half_a_line_of_a_client_that_dies_is_nobodys() {
    let dir = Dir::new();
    start(&dir);
    let mut reader = join(&dir);
    let mut dying = join(&dir);
    dying.send("whole\nhal");
    assert_eq!(reader.line(), from_us("whole"));
    drop(dying);
    wait_until("it has left", || log_lines_matching(&dir.read(LOG), " left, ") == 1);
    let mut other = join(&dir);
    other.send("next\n");
    assert_eq!(reader.line(), from_us("next"));
}

#[test]
fn the_longest_line_passes_and_a_longer_one_is_told_its_sender() {
    let dir = Dir::new();
    start(&dir);
    let (mut sender, mut reader) = (join(&dir), join(&dir));
    sender.send(format!("{}\n", "x".repeat(1024)));
    assert_eq!(reader.line(), from_us(&"x".repeat(1024)));
    for length in [1025, 1104, 1105, 5000, 1_000_000] {
        sender.send(format!("{}\nafter {length}\n", "x".repeat(length)));
        assert_eq!(reader.line(), from_us(&format!("after {length}")));
        assert!(sender.line().contains("at most 1024 bytes"), "{length}");
    }
}

#[test]
fn nothing_that_is_sent_can_look_like_another_client_or_command_a_terminal() {
    let dir = Dir::new();
    start(&dir);
    let (mut sender, mut reader) = (join(&dir), join(&dir));
    sender.send(b"x\r[pid 1] I am init\n\x1b]0;title\x07\0\xff\xc2\x9b1m\n");
    assert_eq!(reader.line(), from_us("x\\x0d[pid 1] I am init"));
    assert_eq!(reader.line(), from_us("\\x1b]0;title\\x07\\x00\\xff\\xc2\\x9b1m"));
    // Noise of any kind: each line is one line, and begins with who sent it.
    let noise = Random::new(1).bytes(20_000);
    for chunk in noise.chunks(500) {
        sender.send(chunk);
        sender.send("\nmark\n");
        loop {
            let line = reader.bytes().unwrap();
            assert!(line.starts_with(from_us("").as_bytes()));
            assert!(line.iter().all(|byte| *byte == b'\t' || *byte >= b' '));
            if line.ends_with(b"] mark") {
                break;
            }
        }
    }
}

// ----- who is slow, who is too many ----------------------------------------------

#[test]
fn a_slow_reader_loses_lines_is_told_how_many_and_holds_nobody_up() {
    let dir = Dir::new();
    start(&dir);
    let (mut sender, mut slow, mut reader) = (join(&dir), join(&dir), join(&dir));
    // A short line might find room where a long one did not.
    let text = |number: usize| {
        format!("{number} {}", if number.is_multiple_of(2) { "x".repeat(1000) } else { String::new() })
    };
    let count = 4000;
    for number in 0..count {
        sender.send(text(number) + "\n");
        assert_eq!(reader.line(), from_us(&text(number)));
    }
    // Now it reads: a beginning without a gap, then what it missed.
    let mut got = 0;
    let lost = loop {
        let line = slow.line();
        match line.strip_suffix(" lines lost") {
            Some(lost) => break lost.strip_prefix("[hub] ").unwrap().parse::<usize>().unwrap(),
            None => assert_eq!(line, from_us(&text(got))),
        }
        got += 1;
    };
    assert_eq!(got + lost, count);
    assert!(lost > 0 && got > 0, "{got} {lost}");
    sender.send("again\n");
    assert_eq!(slow.line(), from_us("again"));
}

#[test]
fn who_reads_nothing_can_still_speak() {
    let dir = Dir::new();
    start(&dir);
    let (mut sender, mut deaf, mut reader) = (join(&dir), join(&dir), join(&dir));
    let text = format!("{}\n", "x".repeat(1000));
    for _ in 0..2000 {
        sender.send(&text);
        reader.line();
    }
    deaf.send("I do not listen\n");
    assert_eq!(reader.line(), from_us("I do not listen"));
}

#[test]
fn the_seventeenth_reads_server_full_until_somebody_leaves() {
    let dir = Dir::new();
    start(&dir);
    let mut clients: Vec<Client> = (0..16).map(|_| join(&dir)).collect();
    let mut extra = Client::over(UnixStream::connect(socket(&dir)).unwrap());
    assert_eq!(extra.rest(), ["server full"]);
    let ran = dir.zigsvc(&["chat"]).expect(1);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "zigsvc: chat: server full; try again later\n"));
    drop(clients.pop());
    wait_until("one has left", || log_lines_matching(&dir.read(LOG), " left, 15 clients") == 1);
    let mut late = join(&dir);
    clients[0].send("all here\n");
    assert_eq!(late.line(), from_us("all here"));
}

#[test]
fn silent_and_half_dead_clients_stall_nobody() {
    let _measuring = crate::support::measuring();
    let dir = Dir::new();
    let pid = start(&dir);
    let mut silent: Vec<Client> = (0..12).map(|_| join(&dir)).collect();
    for (number, client) in silent.iter_mut().enumerate() {
        client.send(&b"half a line"[..number]);
    }
    let (mut sender, mut reader) = (join(&dir), join(&dir));
    for number in 0..100 {
        sender.send(format!("{number}\n"));
        assert_eq!(reader.line(), from_us(&number.to_string()));
    }
    // It does not spin either: nothing but its heartbeat.
    let ticks = || crate::support::control::ticks(pid);
    let before = ticks();
    let beats = || heartbeat(&dir, "zigsvc-hub.health");
    let first = beats();
    wait_until("three heartbeats", || beats() >= first + 3);
    assert!(
        !require_native("the processor's time would be mostly QEMU's") || ticks() - before < 15,
        "it spins"
    );
}

#[test]
fn joins_and_leaves_are_logged_with_who_it_was() {
    let dir = Dir::new();
    start(&dir);
    drop(join(&dir));
    wait_until("it has left", || log_lines_matching(&dir.read(LOG), " left, 0 clients") == 1);
    let uid = fs::metadata(dir.path("")).unwrap().uid();
    let line = format!("[INFO] pid {} (uid {uid}) joined, 1 clients", std::process::id());
    assert_eq!(log_lines_matching(&dir.read(LOG), &line), 1, "{}", dir.read(LOG));
}

/// Covers the connection by which a monitor of root finds out if the hub lives. It is no client, and
/// gets the end of the stream as its answer.
#[test]
fn a_probe_is_answered_and_neither_logged_nor_counted() {
    let dir = Dir::new();
    let pid = start(&dir);
    let mut listener = join(&dir);
    for _ in 0..20 {
        let mut probe = UnixStream::connect(socket(&dir)).unwrap();
        probe.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        probe.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty(), "{answer:?}");
    }
    // A client that says a line and ends its sending is one, and so is one that closes at once.
    let mut short = Client::over(UnixStream::connect(socket(&dir)).unwrap());
    short.send("hello\n");
    short.end_sending();
    assert_eq!(listener.line(), from_us("hello"));
    drop(UnixStream::connect(socket(&dir)).unwrap());
    wait_until("both have left", || log_lines_matching(&dir.read(LOG), " left, 1 clients") == 2);
    assert_eq!(joined(&dir), 3, "{}", dir.read(LOG));
    kill(pid, "USR2");
    wait_until("the others are counted", || dir.read(LOG).contains(" joined=3 "));
    assert_eq!(log_lines_matching(&dir.read(LOG), " left, "), 2);
}

#[test]
fn everybody_may_talk() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    start(&dir);
    assert_eq!(fs::symlink_metadata(socket(&dir)).unwrap().mode() & 0o777, 0o666);
    let mut reader = join(&dir);
    let mut stranger = Client::over(connect_as(&socket(&dir), 54321, 54321, &[]).unwrap());
    stranger.send("hello from afar\n");
    assert_eq!(reader.line(), from_us("hello from afar"));
    assert_eq!(log_lines_matching(&dir.read(LOG), "(uid 54321) joined"), 1);
}

// ----- chat ------------------------------------------------------------------------

#[test]
fn chat_carries_lines_both_ways_and_ends_with_its_input() {
    let dir = Dir::new();
    start(&dir);
    let mut other = join(&dir);
    let mut child = chat(&dir);
    let pid = child.id();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"typed\n").unwrap();
    assert_eq!(other.line(), format!("[pid {pid}] typed"));
    other.send("answered\n");
    let mut heard = [0; 64];
    let count = child.stdout.as_mut().unwrap().read(&mut heard).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard[..count]), from_us("answered\n"));
    // A last line without a newline is one.
    stdin.write_all(b"bye").unwrap();
    drop(stdin);
    assert_eq!(other.line(), format!("[pid {pid}] bye"));
    let ran = outcome(child).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
}

#[test]
fn chat_sends_more_than_the_hub_takes_at_once() {
    let dir = Dir::new();
    start(&dir);
    let mut reader = join(&dir);
    let lines: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let mut command = dir.command();
    command.arg("chat");
    let sender = std::thread::spawn(move || finish(command, Some(lines.as_bytes())));
    let (mut got, mut lost) = (0, 0);
    while got + lost < 20_000 {
        let line = reader.line();
        match line.strip_prefix("[hub] ") {
            Some(rest) => lost += rest.strip_suffix(" lines lost").unwrap().parse::<usize>().unwrap(),
            None => {
                assert!(line.ends_with(&format!("] {}", got + lost)), "{line} after {got} and {lost} lost");
                got += 1;
            }
        }
    }
    sender.join().unwrap().expect(0);
}

#[test]
fn chat_ends_when_the_hub_does_and_tells_when_there_is_none() {
    let dir = Dir::new();
    let ran = dir.zigsvc(&["chat"]).expect(7);
    assert_eq!(ran.err, not_running(&dir, "hub", "zigsvc-hub.sock"));
    start(&dir);
    let mut child = chat(&dir);
    // Its input stays open until the end.
    let stdin = child.stdin.take();
    dir.zigsvc(&["stop", "hub"]).expect(0);
    outcome(child).expect(0);
    drop(stdin);
    dir.zigsvc(&["chat", "there"]).expect(2);
}

#[test]
fn chat_ends_when_nobody_reads_it_any_more() {
    let dir = Dir::new();
    start(&dir);
    let mut other = join(&dir);
    let mut child = chat(&dir);
    let stdin = child.stdin.take();
    drop(child.stdout.take());
    // A process that another test starts at this moment may hold a copy for an instant.
    wait_until("it has ended", || {
        other.send("anybody?\n");
        child.try_wait().unwrap().is_some()
    });
    assert_eq!(outcome(child).code, 1);
    drop(stdin);
}

#[test]
fn socat_is_a_client_too() {
    if !require_tool("socat") {
        return;
    }
    let dir = Dir::new();
    start(&dir);
    let mut other = join(&dir);
    let mut socat = program("socat");
    socat.arg("-").arg(format!("UNIX-CONNECT:{}", socket(&dir).display()));
    finish(socat, Some(b"by hand\n")).expect(0);
    assert!(other.line().ends_with("] by hand"));
}

// ----- the service -----------------------------------------------------------------

#[test]
fn it_lives_as_every_service_does() {
    let dir = Dir::new();
    let pid = start(&dir);
    let status = dir.zigsvc(&["status", "hub"]).expect(0);
    assert!(
        status.out.starts_with(&format!("hub: running (pid {pid}), up "))
            && status.out.contains(" s\n  heartbeat  fresh"),
        "{}",
        status.out
    );
    assert!(dir.zigsvc(&["start", "hub"]).expect(1).err.contains("already running"));
    let (mut first, mut second) = (join(&dir), join(&dir));
    first.send("one\ntwo\n");
    second.lines(2);
    dir.zigsvc(&["-o", "log_level=debug", "reload", "hub"]).expect(0);
    wait_until("it has reloaded", || dir.read(LOG).contains("SIGHUP received, reloading config"));
    kill(pid, "USR2");
    wait_until("it has told", || dir.read(LOG).contains("clients=2 lines=2 degraded=none"));
    dir.zigsvc(&["rotate", "hub"]).expect(0);
    wait_until("it has rotated", || dir.path("zigsvc-hub.log.1").exists());
    dir.zigsvc(&["stop", "hub"]).expect(0);
    assert_eq!(first.bytes(), None);
    let log = dir.read(LOG);
    assert!(log.contains("SIGTERM received, stopping\n"), "{log}");
    assert!(log.ends_with("[INFO] daemon stopped, passed on 2 lines\n"), "{log}");
    for name in ["zigsvc-hub.pid", "zigsvc-hub.sock", "zigsvc-hub.health"] {
        assert!(!dir.path(name).exists(), "{name}");
    }
    dir.zigsvc(&["status", "hub"]).expect(3);
}

#[test]
fn the_log_is_rotated_before_a_reload_that_came_with_the_same_turn() {
    let dir = Dir::new();
    let pid = start(&dir);
    fs::create_dir(dir.path("new")).unwrap();
    dir.write("zigsvc.conf", format!("log_file = \"{}\"\n", dir.path("new/zigsvc.log").display()));
    kill(pid, "STOP");
    kill(pid, "HUP");
    kill(pid, "USR1");
    kill(pid, "CONT");
    wait_until("it has reloaded", || dir.read(LOG).contains("config: log_file changed"));
    assert!(dir.path("zigsvc-hub.log.1").exists(), "the old log is rotated");
}

#[test]
fn a_bad_config_changes_nothing_on_reload() {
    let dir = Dir::new();
    let pid = start(&dir);
    dir.write("zigsvc.conf", "interval = 3\n");
    dir.zigsvc(&["reload", "hub"]).expect(6);
    kill(pid, "HUP");
    wait_until("it was refused", || dir.read(LOG).contains("config not reloaded, the old one stays: "));
    dir.zigsvc(&["status", "hub"]).expect(0);
}

#[test]
fn a_socket_that_was_deleted_comes_back() {
    let dir = Dir::new();
    start(&dir);
    let mut old = join(&dir);
    fs::remove_file(socket(&dir)).unwrap();
    let before = joined(&dir);
    // The connection that shows the socket is also the one that is used, because the join
    // of another one, logged late, would be taken for the join of this one.
    let mut stream = None;
    wait_until("it is there again", || {
        stream = UnixStream::connect(socket(&dir)).ok();
        stream.is_some()
    });
    let mut new = Client::over(stream.unwrap());
    wait_until("it has joined", || joined(&dir) > before);
    old.send("still here\n");
    assert_eq!(new.line(), from_us("still here"));
}

#[test]
fn it_is_another_user_if_the_config_says_so() {
    if !crate::support::require_root() || !crate::support::require_native("/proc shows QEMU's own process") {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let pid = dir.start_service("hub", &["user=65534", "group=65534", "interval=100ms"]);
    assert_eq!(crate::support::proc_status(pid, "Uid"), "65534 65534 65534 65534");
    assert_eq!(crate::support::proc_status(pid, "NoNewPrivs"), "1");
    let (mut first, mut second) = (join(&dir), join(&dir));
    first.send("dropped\n");
    assert_eq!(second.line(), from_us("dropped"));
    dir.zigsvc(&["stop", "hub"]).expect(0);
    dir.zigsvc(&["status", "hub"]).expect(3);
}

#[cfg(feature = "supervisor")]
#[test]
fn a_supervisor_restarts_it() {
    if !crate::support::require_self_exec() {
        return;
    }
    let dir = Dir::new();
    dir.start_service("supervisor", &["supervise=hub", "interval=100ms"]);
    let pid = dir.lock_holder("zigsvc-hub.pid").unwrap();
    kill(pid, "KILL");
    let other = || dir.lock_holder("zigsvc-hub.pid").filter(|now| *now != pid);
    wait_until("another one runs", || other().is_some());
    wait_until("it can be reached", || UnixStream::connect(socket(&dir)).is_ok());
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(holds_within(Duration::from_secs(1), || dir.lock_holder("zigsvc-hub.pid").is_none()));
}
