//! The language of the control socket. The effect of the requests on jobs is tested in
//! `requests.rs`, the rights to use the socket in `access.rs`, and clients that
//! misbehave in `hostile.rs`. The contract is `docs/control.md`.

use crate::support::control::{Client, REQUEST_COUNT, ask, expect_error, field, start, status};
use crate::support::{Dir, kill, program, require_tool, under_qemu, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;

#[test]
fn status_names_every_field_once_and_in_order() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let answer = ask(&dir, "status");
    let fields: Vec<(&str, &str)> =
        answer.strip_prefix("ok ").unwrap().split(' ').map(|word| word.split_once('=').unwrap()).collect();
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names.join(" "),
        "pid state uptime jobs failed dead dead_dropped waiting running delayed room reloads reload_errors rotations \
         log_replaced log_lost fsyncs spool_bytes clients denied workers token scheduled health_age_ms handler degraded"
    );
    for (name, value) in fields {
        match name {
            "pid" => assert_eq!(value, pid.to_string()),
            "state" => assert_eq!(value, "running"),
            "clients" | "workers" => assert_eq!(value, "1"),
            "room" => assert_eq!(value, "10000"),
            "handler" => assert_eq!(value, "log"),
            "degraded" => assert!(value == "none" || (under_qemu() && value == "inotify"), "{value}"),
            "uptime" | "fsyncs" | "spool_bytes" | "token" | "health_age_ms" => {
                assert!(value.parse::<u64>().is_ok(), "{name}")
            }
            _ => assert_eq!(value, "0", "{name}"),
        }
    }
}

#[test]
fn status_counts_what_happens() {
    let dir = Dir::new();
    let script = format!("until [ -e {}/go ]; do sleep 0.05; done", dir.as_arg());
    let pid = start(&dir, &["handler=shell", "retries=1", "retry_delay=10m", "queue_max=50", "workers=2"]);
    let mut client = Client::new(&dir);
    for text in ["true", "true", "false", &script, &script, &script] {
        client.queue(text);
    }
    wait_until("two run", || client.status("running") == 2);
    wait_until("the third has failed", || client.status("failed") == 1);
    let answer = client.ask("status");
    for (name, value) in
        [("jobs", 2), ("dead", 0), ("waiting", 2), ("running", 2), ("delayed", 1), ("room", 46)]
    {
        assert_eq!(field(&answer, name), value.to_string(), "{name}: {answer}");
    }
    assert!(client.status("fsyncs") >= 6 && client.status("spool_bytes") > 100);
    kill(pid, "HUP");
    kill(pid, "USR1");
    wait_until("it has reloaded", || client.status("reloads") == 1);
    wait_until("it has rotated", || client.status("rotations") == 1);
    dir.write("zigsvc.conf", "nonsense = 1\n");
    kill(pid, "HUP");
    wait_until("it has refused a reload", || client.status("reload_errors") == 1);
    let others: Vec<_> = (0..3).map(|_| Client::new(&dir)).collect();
    wait_until("all are counted", || client.status("clients") == 4);
    drop(others);
    wait_until("they are gone", || client.status("clients") == 1);
    dir.write("go", "");
    wait_until("all but the failed one are done", || client.status("jobs") == 5);
    assert_eq!((client.status("waiting"), client.status("running"), client.status("room")), (1, 0, 49));
}

#[test]
fn status_says_that_nothing_is_synced() {
    let dir = Dir::new();
    start(&dir, &["sync=never"]);
    let mut client = Client::new(&dir);
    let before = client.status("fsyncs");
    client.queue("a");
    client.ask("wait 1");
    assert_eq!(client.status("fsyncs"), before);
    assert!(client.status_word("degraded").split(',').any(|word| word == "sync-never"));
}

#[test]
fn help_has_one_line_for_each_request() {
    let dir = Dir::new();
    start(&dir, &[]);
    let lines = Client::new(&dir).ask_list("help");
    let verbs: Vec<&str> = lines.iter().map(|line| line.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(
        verbs,
        [
            "status", "queue", "after", "list", "queue!", "after!", "follow", "wait", "others", "watch",
            "cancel", "retry", "forget", "hold", "resume", "drain", "stop", "restart", "help"
        ]
    );
    for line in lines {
        let owner = ["cancel", "retry", "forget", "hold", "resume", "drain", "stop", "restart"]
            .iter()
            .any(|verb| line.starts_with(verb));
        assert_eq!(line.ends_with("(owner only)"), owner, "{line}");
    }
}

/// Returns the words of each request, and the users who may make it, as the table of a page has them.
fn requests_of_page(page: &str) -> BTreeSet<(String, bool)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| request | answer | who |").skip(2);
    let mut requests = BTreeSet::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let row = row.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let is_owner = ["all", "owner"].iter().position(|who| *who == cells[3]).unwrap() == 1;
        for words in cells[1].split('`').skip(1).step_by(2) {
            requests.insert((words.to_owned(), is_owner));
        }
    }
    requests
}

/// Returns the same of the lines of `help`. A page has a row for each form of a request: with and
/// without an argument that can be left out, and for each alternative.
fn requests_of_help(lines: &[String]) -> BTreeSet<(String, bool)> {
    let mut requests = BTreeSet::new();
    for line in lines {
        let (words, text) = line.split_once(": ").unwrap();
        let is_owner = text.ends_with(" (owner only)");
        let (verb, args) = words.split_once(' ').unwrap_or((words, ""));
        let forms: Vec<String> = match args.strip_prefix('[').and_then(|args| args.strip_suffix(']')) {
            // The argument of `list` stands in the page as it is, and once more for `done`.
            Some("STATE [AFTER_ID]") => vec![args.to_owned(), "done [AFTER_ID]".to_owned()],
            Some("AFTER_NAME") => vec![args.to_owned()],
            Some(optional) => vec![String::new(), optional.to_owned()],
            None => args.split('|').map(str::to_owned).collect(),
        };
        requests.extend(forms.iter().map(|form| (format!("{verb} {form}").trim().to_owned(), is_owner)));
    }
    requests
}

#[test]
fn the_pages_have_the_requests_of_help_with_their_words_and_rights() {
    let dir = Dir::new();
    start(&dir, &[]);
    let help = Client::new(&dir).ask_list("help");
    assert_eq!(requests_of_page("docs/control.md"), requests_of_help(&help));
    dir.start_service("supervisor", &["supervise=[]"]);
    let help =
        Client::over(UnixStream::connect(dir.path("zigsvc-supervisor.sock")).unwrap()).ask_list("help");
    assert_eq!(requests_of_page("docs/supervision.md"), requests_of_help(&help));
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    let bad = [
        "",
        " ",
        "\t \t",
        "\r",
        "STATUS",
        "Status",
        "statu",
        "statuss",
        "status x",
        "queue",
        "queue \t ",
        "queue a\0b",
        "list 5",
        "list dead x",
        "list dead 1 2",
        "list alive",
        "list all -1",
        "wait",
        "wait x",
        "wait -1",
        "wait 1 2",
        "wait 18446744073709551616",
        "watch 1",
        "help me",
        "cancel",
        "cancel dead",
        "cancel +1",
        "cancel 0x1",
        "retry",
        "retry all",
        "retry 1 2",
        "forget",
        "forget dead 1",
        "drain now",
        "stop now",
        "\0",
        "status\0",
        "quit",
        "GET / HTTP/1.1",
        "\u{1b}[2J",
    ];
    for request in bad {
        expect_error(&client.ask(request), "bad-request");
    }
    assert!(client.ask("a\u{1b}[2Jb").contains(r"\x1b"), "what came is escaped");
    for request in
        ["wait 7", "wait 18446744073709551615", "cancel 7", "retry 7", "forget 7", "wait 0", "cancel 0"]
    {
        expect_error(&client.ask(request), "no-job");
    }
    assert_eq!(client.ask("retry dead"), "ok count=0");
    assert_eq!(client.ask("forget dead"), "ok count=0");
    assert_eq!((client.status("waiting"), client.status("jobs"), client.status("denied")), (0, 0, 0));
    assert_eq!(client.status_word("state"), "running");
}

#[test]
fn blanks_and_cr_around_the_words_do_not_matter() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    for request in ["status", "status\r", " status", "\tstatus \t\r", "status  "] {
        assert!(client.ask(request).starts_with("ok pid="), "{request:?}");
    }
    client.queue(" \t a  b\tc \t \r");
    client.queue("d\r");
    crate::support::wait_for_jobs(&dir, 2);
    assert_eq!(crate::support::processed(&dir), ["a  b\tc", "d"]);
    assert_eq!(client.ask("list \t all  \t 0 \r"), "ok 0");
    assert_eq!(client.ask("wait \t 1 \r"), "ok id=1 state=done exit=0");
}

#[test]
fn answers_come_in_the_order_of_the_requests_however_they_are_cut() {
    let requests =
        "queue a\nqueue\nqueue b\nstatus\nlist all 99\nqueue c\r\nwait 1\nnonsense\nqueue d\nhelp\nqueue e\n";
    let check = |client: &mut Client| {
        let answers = client.lines(9);
        let expected = [
            "ok id=1",
            "err bad-request ",
            "ok id=2",
            "ok pid=",
            "ok 0",
            "ok id=3",
            "ok id=1 state=done",
            "err bad-request ",
            "ok id=4",
        ];
        for (answer, expected) in answers.iter().zip(expected) {
            assert!(answer.starts_with(expected), "{answers:?}");
        }
        assert_eq!(client.line(), format!("ok {REQUEST_COUNT}"));
        client.lines(REQUEST_COUNT);
        assert_eq!(client.line(), "ok id=5");
    };
    for size in [1, 2, 7, 30, 1000] {
        let dir = Dir::new();
        start(&dir, &[]);
        let mut client = Client::new(&dir);
        for piece in requests.as_bytes().chunks(size) {
            client.send(piece);
        }
        check(&mut client);
        client.end_sending();
        assert!(client.rest().is_empty());
        crate::support::wait_for_jobs(&dir, 5);
        assert_eq!(crate::support::processed(&dir), ["a", "b", "c", "d", "e"]);
    }
}

#[test]
fn what_is_behind_new_jobs_is_done_once_and_after_them() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    for (request, expected) in
        [("watch", "ok"), ("list dead", "ok 0"), ("cancel 999", "err no-job "), ("retry dead", "ok count=0")]
    {
        let mut client = Client::new(&dir);
        client.send(format!("queue sleep 300\nqueue b\n{request}\n"));
        assert!(client.lines(2).iter().all(|answer| answer.starts_with("ok id=")));
        assert!(client.line().starts_with(expected), "{request}");
    }
    let mut client = Client::new(&dir);
    client.send("queue c\nstop\n");
    assert!(client.line().starts_with("ok id="));
    assert_eq!(client.line(), "ok stopping");
    assert!(client.rest().is_empty());
}

#[test]
fn a_job_is_in_the_journal_when_it_is_acknowledged() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    let mut client = Client::new(&dir);
    client.queue("sleep 300");
    for number in 2..30 {
        let before = client.status("fsyncs");
        let text = format!("echo number-{number}-");
        assert_eq!(client.queue(&text), number);
        let journal = fs::read(dir.path("spool/journal")).unwrap();
        assert!(journal.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        assert!(client.status("fsyncs") > before);
    }
}

#[test]
fn half_a_request_at_the_end_of_the_input_is_refused_and_not_done() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    client.send("queue a\nqueue half of");
    client.end_sending();
    let answers = client.rest();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0], "ok id=1");
    expect_error(&answers[1], "bad-request");
    for sent in ["queue b", "cancel 1", "stop", "status", " "] {
        let mut client = Client::new(&dir);
        client.send(sent);
        client.end_sending();
        let answers = client.rest();
        assert_eq!(answers.len(), 1, "{sent}: {answers:?}");
        expect_error(&answers[0], "bad-request");
    }
    assert_eq!(ask(&dir, "queue b"), "ok id=2", "none of the halves became a job");
    let mut silent = Client::new(&dir);
    silent.end_sending();
    assert!(silent.rest().is_empty(), "nothing was asked");
    wait_until("all are closed", || status(&dir, "clients") == 1);
}

#[test]
fn who_ended_the_input_still_gets_an_answer_that_takes_long() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    let script = format!("until [ -e {}/go ]; do sleep 0.05; done", dir.as_arg());
    assert_eq!(ask(&dir, &format!("queue {script}")), "ok id=1");
    let (mut waiting, mut watching) = (Client::new(&dir), Client::new(&dir));
    waiting.send("wait 1\n");
    waiting.end_sending();
    watching.send("watch\n");
    watching.end_sending();
    assert_eq!(watching.line(), "ok");
    let mut other = Client::new(&dir);
    // A program that another test starts at this moment holds the closed connection of `ask`
    // until it is executed.
    wait_until("the connection of `ask` is closed", || other.status("clients") == 3);
    // Turns pass in which nothing may close them.
    for _ in 0..20 {
        assert_eq!(other.status("clients"), 3);
    }
    dir.write("go", "");
    assert_eq!(waiting.rest(), ["ok id=1 state=done exit=0"]);
    assert!(watching.line().contains("job=1 state=done"));
}

#[test]
fn socat_can_ask() {
    if !require_tool("socat") {
        return;
    }
    let dir = Dir::new();
    start(&dir, &[]);
    let address = format!("UNIX-CONNECT:{}", dir.path("zigsvc.sock").display());
    let socat = |input: &str| {
        let mut command = program("socat");
        command.args(["-t60", "-", &address]);
        crate::support::finish(command, Some(input.as_bytes())).expect(0).out
    };
    assert!(socat("status\n").starts_with("ok pid="));
    assert!(socat("status").starts_with("err bad-request "));
    assert_eq!(socat("queue from a script\nwait 1\n"), "ok id=1\nok id=1 state=done exit=0\n");
}
