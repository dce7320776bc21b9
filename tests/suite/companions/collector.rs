//! `collector` and `metric`: the answers, the refusals, the rights of clients, and the
//! hostile actions of clients. The contract is `docs/collector.md`.

use crate::support::control::{Client, NOBODY, as_user, require_users, ticks};
use crate::support::random::Random;
use crate::support::{
    Dir, Ran, alive, finish, heartbeat, kill, log_lines_matching, program, require_native, require_tool,
    status_line, under_qemu, wait_until,
};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

const LOG: &str = "zigsvc-collector.log";
const CPU: &str = r#"{"name":"cpu","value":42.5}"#;
const DUMP: &str = r#"{"name":"dump","value":0}"#;

/// Starts the service; its PID.
#[track_caller]
fn start(dir: &Dir, options: &[&str]) -> u32 {
    dir.start_service("collector", &[&["log_max=0"], options].concat())
}

fn connect_to(name: &str) -> std::io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Returns the abstract name that follows from the folder.
fn name(dir: &Dir) -> String {
    format!("zigsvc-metrics:{}", dir.as_arg())
}

#[track_caller]
fn connect(dir: &Dir) -> Client {
    Client::over(connect_to(&name(dir)).unwrap())
}

/// Connects a client that is another user.
#[track_caller]
fn connect_as(dir: &Dir, uid: u32, gid: u32, groups: &[u32]) -> Client {
    Client::over(as_user(uid, gid, groups, || connect_to(&name(dir))).unwrap())
}

fn object(name: &str, value: impl core::fmt::Display) -> String {
    format!("{{\"name\":\"{name}\",\"value\":{value}}}")
}

/// Returns all answers to an input after which nothing more comes.
#[track_caller]
fn answers(dir: &Dir, input: impl AsRef<[u8]>) -> Vec<String> {
    let mut client = connect(dir);
    client.send(input);
    client.end_sending();
    client.rest()
}

#[track_caller]
fn dump(dir: &Dir) -> Vec<String> {
    answers(dir, DUMP)
}

#[track_caller]
fn expect_error(answer: &str) {
    let text = answer.strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {answer:?}"));
    assert!(text.len() > 10 && !text.contains(": avg="), "{answer:?}");
}

#[track_caller]
fn wait_for_log(dir: &Dir, text: &str) {
    wait_until(&format!("the log has {text:?}"), || dir.read(LOG).contains(text));
}

/// Returns the number of the last heartbeat.
fn beat(dir: &Dir) -> u64 {
    heartbeat(dir, "zigsvc-collector.health")
}

/// Insists that another client is served, and that the heartbeat continues.
#[track_caller]
fn goes_on(dir: &Dir) {
    let first = beat(dir);
    let mut client = connect(dir);
    wait_until("three heartbeats", || {
        assert!(client.ask(&object("alive", 1)).starts_with("alive: avg=1"));
        beat(dir) >= first + 3
    });
}

// ----- what is answered --------------------------------------------------------

#[test]
fn values_are_averaged_and_dumped() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let mut client = connect(&dir);
    assert_eq!(client.ask(DUMP), "no metrics");
    assert_eq!(client.ask(CPU), "cpu: avg=42.5");
    assert_eq!(client.ask(&object("cpu", 55)), "cpu: avg=48.75");
    assert_eq!(client.ask(DUMP), "cpu: avg=48.75 (n=2)");
    assert_eq!(client.ask(&object("ram", "-1e-6")), "ram: avg=-0.000001");
    assert_eq!(client.ask(&object("cpu", 1)), "cpu: avg=32.833333");
    client.send(DUMP.to_owned() + CPU);
    assert_eq!(client.lines(3), ["cpu: avg=32.833333 (n=3)", "ram: avg=-0.000001 (n=1)", "cpu: avg=35.25"]);
    // A mistake in a request is answered with an error, and the connection continues.
    expect_error(&client.ask(&object("dump", 1)));
    assert_eq!(dump(&dir), ["cpu: avg=35.25 (n=4)", "ram: avg=-0.000001 (n=1)"]);
    wait_until("the others are gone", || {
        status_line(&dir, LOG, pid).contains(" clients=1 metrics=2 values=5 denied=0 ")
    });
    dir.zigsvc(&["status", "collector"]).expect(0);
    assert_eq!(dir.zigsvc(&["stop", "collector"]).expect(0).out, "zigsvc: collector stopped\n");
    assert!(client.rest().is_empty() && !alive(pid));
    assert!(dir.read(LOG).contains("daemon stopped, took 5 values"));
    for file in ["zigsvc-collector.pid", "zigsvc-collector.health", "zigsvc-collector.sock"] {
        assert!(!dir.path(file).exists(), "{file}");
    }
    dir.zigsvc(&["status", "collector"]).expect(3);
    assert!(connect_to(&name(&dir)).is_err());
}

#[test]
fn objects_need_no_newlines_and_may_come_in_any_pieces() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = connect(&dir);
    client.send(CPU.repeat(3));
    assert_eq!(client.lines(3), ["cpu: avg=42.5"; 3]);
    let input = format!(
        "{}\r\n \t{}{{\n\"value\" : 2 ,\n\"n\\u0061me\" : \"\\ud83d\\ude00\"\n}}",
        object("é", 1),
        CPU
    );
    for byte in input.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.lines(3), ["é: avg=1", "cpu: avg=42.5", "😀: avg=2"]);
    // Each object is answered at its closing brace: the last one was answered without
    // anything after it.
    for size in 1..40 {
        for piece in input.as_bytes().chunks(size) {
            client.send(piece);
        }
        assert_eq!(client.lines(3), ["é: avg=1", "cpu: avg=42.5", "😀: avg=2"], "{size}");
    }
}

#[test]
fn a_thousand_objects_in_one_write_are_all_answered() {
    let dir = Dir::new();
    start(&dir, &[]);
    let input: String = (1..=1000).map(|number| object("n", number)).collect();
    let expected: Vec<_> =
        (1..=1000).map(|number| format!("n: avg={}", f64::from(number + 1) / 2.0)).collect();
    assert_eq!(answers(&dir, &input), expected);
    assert_eq!(dump(&dir), ["n: avg=500.5 (n=1000)"]);
}

#[test]
fn the_values_of_one_that_leaves_without_reading_count() {
    let dir = Dir::new();
    start(&dir, &[]);
    for round in 1..=20 {
        drop({
            let mut client = connect(&dir);
            client.send(CPU.repeat(1000));
            client
        });
        wait_until("they count", || {
            dump(&dir).first().is_some_and(|line| *line == format!("cpu: avg=42.5 (n={})", round * 1000))
        });
    }
}

#[test]
fn sums_are_exact_however_large() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = connect(&dir);
    let largest = "18446744073709551615.999999";
    client.send(object("max", largest).repeat(200) + &object("min", format!("-{largest}")).repeat(200));
    assert_eq!(client.lines(200), vec![format!("max: avg={largest}"); 200]);
    assert_eq!(client.lines(200), vec![format!("min: avg=-{largest}"); 200]);
    for (index, value) in ["1e19", "0.000001", "-1e19", "0.0000014"].into_iter().enumerate() {
        let expected = ["10000000000000000000", "5000000000000000000.000001", "0", "0.000001"][index];
        assert_eq!(client.ask(&object("mix", value)), format!("mix: avg={expected}"));
    }
    for value in ["1e20", "1e400", "-1e400", "18446744073709551616", "1e99999999999999999999"] {
        expect_error(&client.ask(&object("mix", value)));
    }
    assert_eq!(client.ask(&object("tiny", "1e-400")), "tiny: avg=0");
    assert_eq!(client.ask(&object("tiny", "1e-99999999999999999999")), "tiny: avg=0");
}

// ----- what is refused ---------------------------------------------------------

#[test]
fn what_is_not_an_object_is_one_error_and_the_connection_goes_on() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = connect(&dir);
    let nested = "[".repeat(100_000);
    let deep = format!("{{\"name\":{}", "{\"name\":".repeat(10_000));
    let long = format!("{{\"name\":\"x\"{}", " ".repeat(5000));
    let bad: &[&str] = &[
        "x",
        "{}",
        "[]",
        "null",
        "42",
        "\"x\"",
        "{",
        "{{",
        "}",
        ",",
        "{\"name\"}",
        "{name:\"x\",value:1}",
        "{'name':'x','value':1}",
        "{\"name\":\"x\"}",
        "{\"value\":1}",
        "{\"name\":\"x\",\"value\":}",
        "{\"name\":\"x\",\"value\":\"1\"}",
        "{\"name\":1,\"value\":1}",
        "{\"name\":\"x\",\"value\":null}",
        "{\"name\":\"x\",\"value\":NaN}",
        "{\"name\":\"x\",\"value\":Infinity}",
        "{\"name\":\"x\",\"value\":+1}",
        "{\"name\":\"x\",\"value\":01}",
        "{\"name\":\"x\",\"value\":1.}",
        "{\"name\":\"x\",\"value\":.5}",
        "{\"name\":\"x\",\"value\":1e}",
        "{\"name\":\"x\",\"value\":0x1}",
        "{\"name\":\"x\",\"value\":1e400}",
        "{\"name\":\"x\",\"value\":1,}",
        "{\"name\":\"x\",\"value\":1,\"value\":1}",
        "{\"name\":\"x\",\"name\":\"x\",\"value\":1}",
        "{\"name\":\"x\",\"value\":1,\"more\":1}",
        "{\"name\":\"x\" \"value\":1}",
        "{\"name\":\"\",\"value\":1}",
        "{\"name\":\"\\x\",\"value\":1}",
        "{\"name\":\"\\ud800\",\"value\":1}",
        "{\"name\":\"\\udc00\",\"value\":1}",
        "{\"name\":\"\\u12\",\"value\":1}",
        "{\"name\":\"a\\u001b[2Jb\",\"value\":1}",
        "{\"name\":\"a\\nb\",\"value\":1}",
        "{\"name\":\"\t\",\"value\":1}",
        "{\"name\":\"unterminated",
        "{\"name\":{\"name\":\"x\"},\"value\":1}",
        "{\"name\":[\"x\"],\"value\":1}",
        "{\"name\":\"x\",\"value\":[1]}",
        "x{\"name\":\"x\",\"value\":1}",
        &nested,
        &deep,
        &long,
    ];
    for text in bad {
        // Two objects follow on lines of their own, so that the first ends an object that
        // is still open.
        client.send(format!("{text}\n!\n{CPU}\n"));
        let shown = &text[..text.len().min(60)];
        let (first, second) = (client.line(), client.line());
        expect_error(&first);
        if second == "cpu: avg=42.5" {
            // The newline was blank space of the object, which `!` then ended.
            assert!(text.starts_with('{'), "{shown}");
        } else {
            expect_error(&second);
            assert_eq!(client.line(), "cpu: avg=42.5", "{shown}");
        }
        let answers = answers(&dir, text);
        assert_eq!(answers.len(), 1, "{shown}: {answers:?}");
        expect_error(&answers[0]);
    }
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        client.send([b"{\"name\":\"", bytes, b"\",\"value\":1}\n"].concat());
        expect_error(&client.line());
    }
    assert_eq!(dump(&dir).len(), 1, "nothing of it was counted");
}

#[test]
fn the_end_of_the_input_inside_an_object_is_an_error() {
    let dir = Dir::new();
    start(&dir, &[]);
    for length in 1..CPU.len() {
        let answers = answers(&dir, format!("{CPU}{}", &CPU[..length]));
        assert_eq!(answers.len(), 2, "{length}");
        expect_error(&answers[1]);
    }
    assert_eq!(answers(&dir, ""), [""; 0]);
    assert_eq!(answers(&dir, " \n\r\t "), [""; 0]);
    assert_eq!(dump(&dir), [format!("cpu: avg=42.5 (n={})", CPU.len() - 1)]);
}

#[test]
fn there_is_room_for_64_names_of_64_bytes() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = connect(&dir);
    let long = |number: usize| format!("{number:0>62}é");
    for number in 0..64 {
        assert_eq!(long(number).len(), 64);
        assert_eq!(client.ask(&object(&long(number), number)), format!("{}: avg={number}", long(number)));
    }
    expect_error(&client.ask(&object("x", 1)));
    expect_error(&client.ask(&object(&format!("{}x", long(0)), 1)));
    // It is an object all the same: what follows it needs no newline.
    client.send(object("x", 1) + &object(&long(63), 62));
    expect_error(&client.line());
    assert_eq!(client.line(), format!("{}: avg=62.5", long(63)));
    let lines = dump(&dir);
    assert_eq!(lines.len(), 64);
    for (number, line) in lines.iter().enumerate().take(63) {
        assert_eq!(*line, format!("{}: avg={number} (n=1)", long(number)));
    }
    let printed = dir.zigsvc(&["metric", "--dump"]).expect(0).out;
    assert_eq!(printed.lines().collect::<Vec<_>>(), lines);
    let samples = dir.zigsvc(&["metric", "--dump", "--prometheus"]).expect(0).out;
    assert_eq!(samples.lines().count(), 2 * (2 + 64));
    assert_eq!(dir.zigsvc(&["metric", "x", "1"]).expect(1).out, "");
}

#[test]
fn noise_gets_at_most_one_error_a_line_and_harms_nobody() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut random = Random::new(7);
    let mut other = connect(&dir);
    for round in 0..if under_qemu() { 10 } else { 60 } {
        let length = random.index(20_000);
        let bytes: Vec<u8> =
            (0..length).map(|_| if random.index(50) == 0 { b'\n' } else { random.byte() }).collect();
        let lines = bytes.split(|byte| *byte == b'\n').count();
        let mut client = connect(&dir);
        let size = 1 + random.index(3000);
        for piece in bytes.chunks(size) {
            client.send(piece);
        }
        client.end_sending();
        let answers = client.rest();
        assert!(answers.len() <= lines && answers.len() + 1 >= lines / 2, "round {round}: {}", answers.len());
        answers.iter().for_each(|answer| expect_error(answer));
        assert_eq!(other.ask(CPU), "cpu: avg=42.5");
    }
    assert_eq!(dump(&dir).len(), 1);
}

#[test]
fn a_megabyte_without_a_newline_gets_one_error() {
    let dir = Dir::new();
    start(&dir, &["interval=100ms"]);
    let mut client = connect(&dir);
    for head in ["", "{", "{\"name\":\"", "x"] {
        client.send(head.to_owned() + &"x".repeat(1 << 20));
        client.send(format!("\n{CPU}"));
        expect_error(&client.line());
        assert_eq!(client.line(), "cpu: avg=42.5");
    }
    client.send("{".to_owned() + &" ".repeat(1 << 20) + "\n" + CPU);
    expect_error(&client.line());
    assert_eq!(client.line(), "cpu: avg=42.5");
    client.send(" \n".repeat(1 << 19) + CPU);
    assert_eq!(client.line(), "cpu: avg=42.5", "blanks between objects are none");
    goes_on(&dir);
}

// ----- clients that hold up no other client -------------------------------------

#[test]
fn who_never_reads_dumps_or_answers_holds_up_nobody() {
    let dir = Dir::new();
    start(&dir, &["interval=100ms"]);
    for number in 0..64 {
        connect(&dir).ask(&object(&format!("{number:0>64}"), 1));
    }
    let noise = [DUMP, CPU].map(|text| text.repeat(5000));
    let mut stuck: Vec<_> = (0..10).map(|_| connect(&dir)).collect();
    for (index, client) in stuck.iter_mut().enumerate() {
        let mut quiet = 0;
        wait_until("it is stuck", || {
            quiet = if client.send_some(noise[index % 2].as_bytes()) > 0 { 0 } else { quiet + 1 };
            quiet > 20
        });
    }
    let first = beat(&dir);
    wait_until("three heartbeats", || {
        assert_eq!(dump(&dir).len(), 64);
        beat(&dir) >= first + 3
    });
    // And it can continue: nothing of a dump is lost.
    for _ in 0..5 {
        let lines = stuck[0].lines(64);
        assert!(
            lines[0].starts_with(&"0".repeat(64))
                && lines[63].starts_with(&format!("{:0>64}: avg=1 (n=", 63))
        );
    }
    for _ in 0..500 {
        assert!(stuck[1].line().starts_with("error: "), "there is no room for cpu");
    }
}

#[test]
fn silent_clients_give_way_and_busy_ones_do_not() {
    let dir = Dir::new();
    let pid = start(&dir, &["interval=100ms"]);
    let mut silent: Vec<_> = (0..16).map(|_| connect(&dir)).collect();
    wait_until("all are there", || status_line(&dir, LOG, pid).contains(" clients=16 "));
    // A client that came within the same millisecond has not been silent for longer.
    let began = beat(&dir);
    wait_until("a later heartbeat", || beat(&dir) > began);
    // For each newcomer one goes that has asked for nothing.
    let mut busy: Vec<_> = (0..16).map(|_| connect(&dir)).collect();
    for client in &mut busy {
        assert_eq!(client.ask(CPU), "cpu: avg=42.5");
    }
    for client in &mut silent {
        assert!(client.rest().is_empty());
    }
    // Those have asked: the seventeenth finds no place.
    let mut late = connect(&dir);
    let answers = late.rest();
    assert_eq!(answers.len(), 1);
    assert!(answers[0].starts_with("error: busy"), "{answers:?}");
    let ran = dir.zigsvc(&["metric", "cpu", "1"]).expect(1);
    assert!(ran.err.starts_with("zigsvc: metric: busy"), "{}", ran.err);
    for client in &mut busy {
        assert_eq!(client.ask(CPU), "cpu: avg=42.5");
    }
    drop(busy.pop());
    wait_until("there is room again", || dir.zigsvc(&["metric", "cpu", "42.5"]).code == 0);
}

#[test]
fn clients_that_wait_keep_the_processor_free() {
    if !require_native("the processor's time would be mostly QEMU's") {
        return;
    }
    let _measuring = crate::support::measuring();
    let dir = Dir::new();
    let pid = start(&dir, &["interval=250ms"]);
    let connect_and = |bytes: &str| {
        let mut client = connect(&dir);
        client.send(bytes);
        client
    };
    let cut = "{\"name\":\"x".to_owned();
    let waiting = ["", CPU, "{", &cut, "x", DUMP].map(connect_and);
    let mut stuck = [connect(&dir), connect(&dir)];
    for (client, text) in stuck.iter_mut().zip([DUMP, CPU]) {
        let noise = text.repeat(5000);
        wait_until("it is stuck", || client.send_some(noise.as_bytes()) == 0);
    }
    let (began, used) = (beat(&dir), ticks(pid));
    wait_until("eight heartbeats", || beat(&dir) >= began + 8);
    let used = ticks(pid) - used;
    assert!(used < 50, "{used} ticks in eight heartbeats");
    assert!(status_line(&dir, LOG, pid).contains(" clients=8 "));
    drop((waiting, stuck));
    wait_until("all are gone", || status_line(&dir, LOG, pid).contains(" clients=0 "));
}

/// Waits for the limit itself, so it takes more than 30 seconds.
#[test]
fn half_an_object_and_answers_that_nobody_reads_close_the_connection_after_30_seconds() {
    let dir = Dir::new();
    let pid = start(&dir, &["interval=100ms"]);
    let mut half = connect(&dir);
    half.send(format!("{CPU}{{\"name\":"));
    assert_eq!(half.line(), "cpu: avg=42.5");
    let mut wrong = connect(&dir);
    wrong.send("x".repeat(5000));
    expect_error(&wrong.line());
    let mut deaf = connect(&dir);
    let noise = DUMP.repeat(5000);
    let mut quiet = 0;
    wait_until("it is stuck", || {
        quiet = if deaf.send_some(noise.as_bytes()) > 0 { 0 } else { quiet + 1 };
        quiet > 20
    });
    let mut idle = connect(&dir);
    assert_eq!(idle.ask(CPU).split('=').count(), 2);
    wait_until("four are there", || status_line(&dir, LOG, pid).contains(" clients=4 "));
    let began = std::time::Instant::now();
    let limit = crate::support::patience() + core::time::Duration::from_secs(30);
    assert!(crate::support::holds_within(limit, || status_line(&dir, LOG, pid).contains(" clients=1 ")));
    assert!(began.elapsed() > core::time::Duration::from_secs(20));
    assert!(half.rest().is_empty() && wrong.rest().is_empty());
    assert!(idle.ask(CPU).starts_with("cpu: "), "an idle one stays");
}

// ----- who may -----------------------------------------------------------------

/// Makes a folder with a service that the tests' users can reach. Returns `None` if the
/// tests cannot be other users.
#[track_caller]
fn shared(options: &[&str]) -> Option<(Dir, u32)> {
    let dir = Dir::new();
    if !require_users(&dir) {
        return None;
    }
    let pid = start(&dir, options);
    Some((dir, pid))
}

#[test]
fn who_is_not_named_is_denied_and_closed() {
    let Some((dir, pid)) = shared(&[]) else { return };
    for input in [CPU, DUMP, "x", "{\"name\":"] {
        let mut client = connect_as(&dir, NOBODY, NOBODY, &[]);
        client.send(input);
        client.end_sending();
        let answers = client.rest();
        assert_eq!(answers.len(), 1, "{input}: {answers:?}");
        assert!(answers[0].starts_with("error: denied: "), "{answers:?}");
    }
    wait_for_log(&dir, "[WARN] metrics: denied to uid 65534 (pid ");
    assert!(status_line(&dir, LOG, pid).contains(" metrics=0 values=0 denied=4 "));
    // Not more of them than fit are logged, and not more than two have a place.
    for _ in 0..20 {
        let mut client = connect_as(&dir, NOBODY, NOBODY, &[]);
        client.send(CPU);
        assert!(client.line().starts_with("error: denied"));
    }
    assert_eq!(log_lines_matching(&dir.read(LOG), "denied to"), 10);
    let silent: Vec<_> = (0..20).map(|_| connect_as(&dir, NOBODY, NOBODY, &[])).collect();
    assert_eq!(answers(&dir, CPU), ["cpu: avg=42.5"]);
    assert!(status_line(&dir, LOG, pid).contains(" metrics=1 values=1 denied=24 "));
    drop(silent);
}

#[test]
fn metric_says_that_it_is_denied() {
    let Some((dir, _)) = shared(&[]) else { return };
    if !require_tool("setpriv") {
        return;
    }
    for arguments in [&["metric", "cpu", "1"][..], &["metric", "--dump"]] {
        let mut command = dir.command();
        command.args(arguments);
        let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let ran = finish(crate::support::through(&words, &command), None).expect(4);
        assert!(
            ran.out.is_empty() && ran.err.starts_with("zigsvc: metric: denied: allow_uid"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn who_is_named_may_and_a_reload_decides_anew() {
    let Some((dir, pid)) = shared(&[]) else { return };
    let configure = |text: &str| {
        dir.write("zigsvc.conf", text);
        let before = log_lines_matching(&dir.read(LOG), "reloading");
        dir.zigsvc(&["reload", "collector"]).expect(0);
        wait_until("it reloads", || log_lines_matching(&dir.read(LOG), "reloading") > before);
        // The reload takes all of its turn: the next turn answers this.
        status_line(&dir, LOG, pid);
    };
    configure("allow_uid = \"nobody\"\n");
    let mut guest = connect_as(&dir, NOBODY, NOBODY, &[]);
    assert_eq!(guest.ask(CPU), "cpu: avg=42.5");
    assert_eq!(guest.ask(DUMP), "cpu: avg=42.5 (n=1)");
    let mut other = connect_as(&dir, 12345, NOBODY, &[]);
    assert!(other.ask(CPU).starts_with("error: denied"));
    configure("allow_gid = 54321\n");
    assert!(guest.rest().is_empty(), "it may no more");
    let mut member = connect_as(&dir, 12345, 54321, &[]);
    assert_eq!(member.ask(DUMP), "cpu: avg=42.5 (n=1)", "metrics survive a reload");
    configure("allow_gid = [54321, 54322]\n");
    assert_eq!(member.ask(CPU), "cpu: avg=42.5");
    // A bad configuration changes nothing.
    dir.write("zigsvc.conf", "allow_uid = \"nobody-of-that-name\"\n");
    kill(pid, "HUP");
    wait_for_log(&dir, "config not reloaded");
    assert_eq!(member.ask(CPU), "cpu: avg=42.5");
}

#[test]
fn a_reload_moves_the_socket_and_keeps_clients_and_metrics() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = connect(&dir);
    assert_eq!(client.ask(CPU), "cpu: avg=42.5");
    let moved = format!("zigsvc-moved:{}", dir.as_arg());
    dir.write("zigsvc.conf", format!("metrics_name = \"{moved}\"\n"));
    dir.zigsvc(&["reload", "collector"]).expect(0);
    wait_until("it moved", || connect_to(&moved).is_ok());
    assert!(connect_to(&name(&dir)).is_err());
    assert_eq!(client.ask(CPU), "cpu: avg=42.5");
    assert_eq!(dir.zigsvc(&["metric", "--dump"]).expect(0).out, "cpu: avg=42.5 (n=2)\n");
    assert!(dir.read(LOG).contains("config: metrics_name changed from"));
    // Together with a second one below the same folder, nothing is touched.
    let ran = dir.zigsvc(&["start", "collector"]).expect(1);
    assert!(ran.err.contains("already running"), "{}", ran.err);
    assert_eq!(Client::over(connect_to(&moved).unwrap()).ask(CPU), "cpu: avg=42.5");
}

#[test]
fn clients_do_not_wait_for_a_new_name_that_is_taken() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let taken = format!("{}-taken", name(&dir));
    let squatter =
        std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(&taken).unwrap());
    let squatter = squatter.unwrap();
    dir.write("zigsvc.conf", format!("metrics_name = \"{taken}\"\n"));
    // One of them is not disturbed by the other work of this machine.
    let waits = (1..=3).map(|round| {
        let begun = std::time::Instant::now();
        kill(pid, "HUP");
        wait_until("the name is refused", || {
            log_lines_matching(&dir.read(LOG), "the socket stays where it was: ") == round
        });
        begun.elapsed()
    });
    assert!(waits.min().unwrap().as_millis() < 900);
    assert_eq!(answers(&dir, CPU), ["cpu: avg=42.5"]);
    drop(squatter);
    kill(pid, "HUP");
    wait_until("it has moved", || connect_to(&taken).is_ok());
}

#[test]
fn a_name_that_is_taken_fails_the_start() {
    let (dir, other) = (Dir::new(), Dir::new());
    start(&dir, &[]);
    let mut command = other.command();
    command.args(["-o", &format!("metrics_name={}", name(&dir)), "start", "collector"]);
    let ran = finish(command, None).expect(1);
    assert!(ran.err.contains("EADDRINUSE") && ran.err.contains(&name(&dir)), "{}", ran.err);
}

// ----- its life ----------------------------------------------------------------

#[test]
fn a_restart_begins_with_no_metrics() {
    let dir = Dir::new();
    let first = start(&dir, &[]);
    dir.zigsvc(&["metric", "cpu", "1"]).expect(0);
    dir.zigsvc(&["restart", "collector"]).expect(0);
    let second = dir.lock_holder("zigsvc-collector.pid").unwrap();
    assert!(second != first && !alive(first));
    assert_eq!(dump(&dir), ["no metrics"]);
}

#[cfg(feature = "supervisor")]
#[test]
fn a_supervisor_starts_it_again() {
    if !crate::support::require_self_exec() {
        return;
    }
    let dir = Dir::new();
    dir.start_service("supervisor", &["log_max=0", "interval=100ms", "supervise=collector"]);
    assert_eq!(dir.zigsvc(&["metric", "cpu", "1"]).expect(0).out, "cpu: avg=1\n");
    let first = dir.lock_holder("zigsvc-collector.pid").unwrap();
    kill(first, "KILL");
    wait_until("another one runs", || {
        dir.lock_holder("zigsvc-collector.pid").is_some_and(|pid| pid != first)
    });
    assert_eq!(dir.zigsvc(&["metric", "cpu", "2"]).expect(0).out, "cpu: avg=2\n");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert_eq!(dir.lock_holder("zigsvc-collector.pid"), None);
}

#[test]
fn it_runs_as_another_user() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    dir.write(LOG, "");
    for file in ["", LOG] {
        std::os::unix::fs::chown(dir.path(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let pid = start(&dir, &["user=nobody"]);
    if require_native("/proc shows QEMU's own process") {
        assert_eq!(crate::support::proc_status(pid, "Uid"), "65534 65534 65534 65534");
    }
    // Root and the service's own user may do everything.
    assert_eq!(dir.zigsvc(&["metric", "cpu", "1"]).expect(0).out, "cpu: avg=1\n");
    assert_eq!(connect_as(&dir, NOBODY, NOBODY, &[]).ask(DUMP), "cpu: avg=1 (n=1)");
    assert!(connect_as(&dir, 12345, 12345, &[]).ask(DUMP).starts_with("error: denied"));
}

#[test]
fn socat_can_ask() {
    if !require_tool("socat") {
        return;
    }
    let dir = Dir::new();
    start(&dir, &[]);
    let mut command = program("socat");
    command.args(["-", &format!("ABSTRACT-CONNECT:{}", name(&dir).replace(':', "\\:"))]);
    let ran = finish(command, Some(format!("{CPU}\n{}\n{DUMP}\n", object("cpu", 55)).as_bytes())).expect(0);
    assert_eq!(ran.out, "cpu: avg=42.5\ncpu: avg=48.75\ncpu: avg=48.75 (n=2)\n");
}

// ----- metric ------------------------------------------------------------------

#[test]
fn metric_prints_the_answer_or_why_there_is_none() {
    let dir = Dir::new();
    let metric = |arguments: &[&str]| dir.zigsvc(&[&["metric"], arguments].concat());
    let err = |ran: Ran, text: &str| assert!(ran.out.is_empty() && ran.err.contains(text), "{ran:?}");
    err(metric(&["cpu", "1"]).expect(7), "zigsvc: collector: not running (tried @zigsvc-metrics:");
    err(metric(&["--dump"]).expect(7), "zigsvc: collector: not running (tried @zigsvc-metrics:");
    start(&dir, &[]);
    assert_eq!(metric(&["--dump"]).expect(0).out, "");
    assert_eq!(metric(&["--dump", "--prometheus"]).expect(0).out, "");
    for (arguments, out) in [
        (&["cpu", "42.5"][..], "cpu: avg=42.5\n"),
        (&["cpu", "55"], "cpu: avg=48.75\n"),
        (&["low", "-5"], "low: avg=-5\n"),
        (&["--", "-5", "-5e-1"], "-5: avg=-0.5\n"),
        (&["--", "low", "-5"], "low: avg=-5\n"),
        (&["a \"b\"\\é😀", "1"], "a \"b\"\\é😀: avg=1\n"),
        (&["error: x", "1"], "error: x: avg=1\n"),
        (&["no metrics", "0.0000005"], "no metrics: avg=0.000001\n"),
    ] {
        assert_eq!(metric(arguments).expect(0).out, out, "{arguments:?}");
    }
    let before = metric(&["--dump"]).expect(0).out;
    assert!(before.starts_with("cpu: avg=48.75 (n=2)\nlow: avg=-5 (n=2)\n"), "{before}");
    let long = "x".repeat(65);
    for arguments in [
        &["cpu", "abc"][..],
        &["cpu", ""],
        &["cpu", "1 "],
        &["cpu", "1}"],
        &["cpu", "NaN"],
        &["cpu", "01"],
        &["cpu", "+1"],
        &["cpu", "1e400"],
        &["", "1"],
        &["a\nb", "1"],
        &["\u{9b}", "1"],
        &[&long, "1"],
        &["dump", "0"],
        &["dump", "1"],
    ] {
        err(metric(arguments).expect(1), "zigsvc: metric: ");
    }
    for arguments in [
        &[][..],
        &["cpu"],
        &["cpu", "1", "2"],
        &["--prometheus"],
        &["--prometheus", "cpu", "1"],
        &["--dump", "cpu"],
        &["cpu", "--dump"],
        &["--dump", "cpu", "1"],
        &["--json", "cpu", "1"],
        &["-5", "5"],
        &["cpu", "1", "--dump"],
    ] {
        err(metric(arguments).expect(2), "see `zigsvc help metric`");
    }
    assert_eq!(metric(&["--dump"]).expect(0).out, before, "nothing of that was sent");
}

#[test]
fn prometheus_can_read_the_dump() {
    let dir = Dir::new();
    start(&dir, &[]);
    for (name, value) in [("cpu", "42.5"), ("cpu", "55"), ("a\"b\\c é{}", "-1")] {
        dir.zigsvc(&["metric", name, value]).expect(0);
    }
    let text = dir.zigsvc(&["metric", "--dump", "--prometheus"]).expect(0).out;
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        [
            "zigsvc_metric_avg{name=\"cpu\"} 48.75",
            "zigsvc_metric_avg{name=\"a\\\"b\\\\c é{}\"} -1",
            "zigsvc_metric_values_total{name=\"cpu\"} 2",
            "zigsvc_metric_values_total{name=\"a\\\"b\\\\c é{}\"} 1",
        ]
    );
    // Each family once, described before its samples, in one block.
    let mut families = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", family, help] => {
                assert!(!families.contains(&family) && help.ends_with('.'));
                families.push(family);
            }
            ["#", "TYPE", family, kind] => {
                assert_eq!(families.last(), Some(&family));
                assert!(["gauge", "counter"].contains(&kind));
            }
            _ => {
                let (family, value) = (line.split('{').next(), line.rsplit(' ').next());
                assert_eq!(families.last().copied(), family);
                assert!(value.unwrap().parse::<f64>().is_ok());
            }
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn what_answers_like_no_collector_is_not_believed() {
    use std::os::unix::net::UnixListener;
    let dir = Dir::new();
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name(&dir)).unwrap()).unwrap();
    for (says, arguments) in [
        ("\x1b[2J\n", &["metric", "cpu", "1"][..]),
        ("cpu: avg=x\n", &["metric", "cpu", "1"]),
        ("cpu: avg=1", &["metric", "cpu", "1"]),
        ("", &["metric", "--dump"]),
        ("\x1b[2J: avg=1 (n=1)\n", &["metric", "--dump"]),
        ("cpu: avg=1\u{1b}[2J (n=1)\n", &["metric", "--dump", "--prometheus"]),
    ] {
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.write_all(says.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
            dir.zigsvc(arguments)
        });
        let ran = ran.expect(1);
        assert!(ran.out.is_empty() && !ran.err.contains('\u{1b}'), "{ran:?}");
    }
}
