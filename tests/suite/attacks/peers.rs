//! A program that listens in the place of a service: a service that was taken over, or a
//! program that was never one. It must not command the terminal of the user that asks it,
//! nor hold the user up for ever.

use crate::support::{Dir, Ran, finish};
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Stdio;

/// The bytes that a terminal obeys, in all their forms: an escape sequence, the same with
/// U+009B, and with its byte alone, a bell, a carriage return, a title.
const HOSTILE: &[u8] = b"\x1b[31m\xc2\x9b31m\x9b31m\x07\rx\x1b]0;title\x07\x7f";

/// Answers each connection with `answer` once it has asked, until the test ends.
fn serve(listener: UnixListener, answer: Vec<u8>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || say(stream.unwrap(), &answer));
        }
    });
}

fn say(mut stream: UnixStream, answer: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(answer);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Insists that nothing that was written can do anything to a terminal.
#[track_caller]
fn is_harmless(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let obeyed = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{fffd}';
        assert!(!text.contains(obeyed), "{text:?}");
    }
}

/// Returns `before`, the hostile bytes, and `after`.
fn around(before: &str, after: &str) -> Vec<u8> {
    [before.as_bytes(), HOSTILE, after.as_bytes()].concat()
}

#[test]
fn no_answer_of_a_service_commands_a_terminal() {
    let dir = Dir::new();
    let field = String::from_utf8_lossy(HOSTILE).replace('\u{fffd}', "");
    let cases: [(&[&str], Vec<u8>); 12] = [
        (&["status"], around("ok pid=1 state=", &format!(" uptime=1 jobs={field}\n"))),
        (&["list"], [around("ok 1\n1 ", ""), around(" ", ""), around(" text ", "\n")].concat()),
        (&["list"], around("err denied ", "\n")),
        (&["list"], around("err ", " text\n")),
        (&["list"], around("", "\n")),
        (&["watch"], around("ok\nevent 1 job=1 state=", " exit=0 ms=1\n")),
        (&["watch"], around("err io ", "\n")),
        (&["cancel", "1"], around("err no-job ", "\n")),
        (&["retry", "dead"], around("ok count=", "\n")),
        (&["queue", "x"], around("ok id=", "\n")),
        (&["queue", "x"], around("err full ", "\n")),
        (&["drain"], around("err io ", "\n")),
    ];
    // The test needs a lock and a heartbeat.
    dir.start(&[]);
    for (number, (args, answer)) in cases.iter().enumerate() {
        let socket = dir.path(&format!("{number}.sock"));
        serve(UnixListener::bind(&socket).unwrap(), answer.clone());
        let mut command = dir.command();
        command.arg("-o").arg(format!("socket={}", socket.display())).args(*args);
        let ran = finish(command, None);
        is_harmless(&ran);
        assert!(!ran.out.is_empty() || !ran.err.is_empty(), "{args:?}: nothing was printed");
    }
}

#[test]
fn json_of_an_answer_commands_no_terminal_either() {
    let dir = Dir::new();
    dir.start(&[]);
    let socket = dir.path("other.sock");
    serve(UnixListener::bind(&socket).unwrap(), around("ok pid=1 mood=", "\n"));
    let option = format!("socket={}", socket.display());
    let ran = dir.zigsvc(&["-o", &option, "status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json["mood"].as_str().unwrap().contains("\u{9b}31m"), "{json}");
    assert!(ran.out.trim_end().chars().all(|c| !c.is_control()), "{:?}", ran.out);
}

#[test]
fn what_a_false_hub_says_is_shown_and_not_obeyed() {
    let dir = Dir::new();
    let lines =
        [around("[pid 1] ", "\n"), around("", "\n"), b"[pid 2] \xc3\xa9 whole\n".to_vec(), around("end", "")];
    serve(UnixListener::bind(dir.path("zigsvc-hub.sock")).unwrap(), lines.concat());
    let ran = dir.zigsvc_with_input(&["chat"], b"hello\n").expect(0);
    is_harmless(&ran);
    assert!(ran.out.contains("[pid 1] \\x1b[31m\\xc2\\x9b31m\\x9b31m\\x07\\x0dx"), "{ran:?}");
    assert!(ran.out.contains("\n[pid 2] \u{e9} whole\nend\\x1b"), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 4, "{ran:?}");
}

#[test]
fn a_line_without_an_end_is_shown_and_not_obeyed() {
    let dir = Dir::new();
    let flood = HOSTILE.repeat(10_000);
    serve(UnixListener::bind(dir.path("zigsvc-hub.sock")).unwrap(), flood);
    let ran = dir.zigsvc_with_input(&["chat"], b"hello\n").expect(0);
    is_harmless(&ran);
    assert!(ran.out.contains('\u{2026}') && ran.out.ends_with('\n'), "a cut line says so");
}

#[test]
fn a_hub_that_hangs_does_not_keep_chat_for_ever() {
    let dir = Dir::new();
    // The kernel accepts the connection, and no process does.
    let _listener = UnixListener::bind(dir.path("zigsvc-hub.sock")).unwrap();
    std::thread::scope(|scope| {
        for input in [b"hello\n".to_vec(), vec![b'x'; 1_000_000]] {
            let dir = &dir;
            scope.spawn(move || {
                let ran = dir.zigsvc_with_input(&["chat"], &input).expect(1);
                assert_eq!(ran.err, "zigsvc: chat: no answer within 30 s\n");
            });
        }
    });
}

#[test]
fn no_answer_of_an_opener_or_a_collector_commands_a_terminal() {
    let dir = Dir::new();
    serve(UnixListener::bind(dir.path("zigsvc-opener.sock")).unwrap(), HOSTILE.to_vec());
    let ran = dir.zigsvc(&["open", "/etc/hostname"]).expect(1);
    is_harmless(&ran);
    let name = format!("attack-{}", std::process::id());
    let answers = [
        around("error: ", "\n"),
        around("", ": avg=1\n"),
        around("cpu: avg=", "\n"),
        around("cpu: avg=1 (n=", ")\n"),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let name = format!("{name}-{number}");
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        serve(UnixListener::bind_addr(&address).unwrap(), answer);
        let option = format!("metrics_name={name}");
        for args in
            [&["metric", "cpu", "1"][..], &["metric", "--dump"], &["metric", "--dump", "--prometheus"]]
        {
            let ran = dir.zigsvc(&[&["-o", &option], args].concat());
            is_harmless(&ran);
            assert_ne!(ran.code, 0, "{args:?}: {ran:?}");
        }
    }
}

#[test]
fn what_is_typed_is_never_obeyed_by_the_terminal_that_shows_the_error() {
    let dir = Dir::new();
    let hostile = std::ffi::OsString::from(String::from_utf8_lossy(HOSTILE).replace('\u{fffd}', ""));
    let raw: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(HOSTILE.to_vec());
    let long: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(HOSTILE.repeat(100));
    for word in [&hostile, &raw, &long] {
        let word = word.as_os_str();
        let before: [&[&str]; 12] = [
            &[],
            &["help"],
            &["list"],
            &["cancel"],
            &["start"],
            &["run", "--ready-fd"],
            &["-o"],
            &["-c"],
            &["open", "/x"],
            &["metric", "cpu"],
            &["log", "-s"],
            &["stop"],
        ];
        for args in before {
            let mut command = dir.command();
            command.args(args).arg(word);
            if args == ["-c"] {
                command.arg("check");
            }
            let ran = finish(command, None);
            is_harmless(&ran);
            assert!(ran.code != 0 && !ran.err.is_empty(), "{args:?}: {ran:?}");
        }
    }
}

#[test]
fn a_job_commands_no_terminal_by_list_or_log() {
    let dir = Dir::new();
    dir.start(&["handler=/bin/false", "retries=0", "log_max=0"]);
    let mut job = HOSTILE.to_vec();
    job.push(b'\n');
    let mut command = dir.command();
    command.args(["queue", "-"]).stdin(Stdio::piped());
    finish(command, Some(&job)).expect(0);
    crate::support::wait_until("it is dead", || crate::support::control::status(&dir, "dead") == 1);
    let ran = dir.zigsvc(&["list"]).expect(0);
    is_harmless(&ran);
    assert!(ran.out.contains("\\xc2\\x9b31m\\x9b31m"), "{ran:?}");
    let log = std::fs::read(dir.path("zigsvc.log")).unwrap();
    assert!(!log.windows(2).any(|pair| pair == b"\xc2\x9b"), "the log commands a terminal");
}
