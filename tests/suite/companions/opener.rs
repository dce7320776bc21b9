//! The opener, as its clients see it: what is handed out, what is denied, and what a path
//! can become between the load of the list and the request. See `opener_worker.rs` for its
//! two processes.

use crate::support::opener::{Client, ask, ask_raw, start};
use crate::support::{
    Dir, by_shell, finish, is_root, kill, log_lines_matching, not_running, program, require, require_native,
    wait_until,
};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Instant;

/// Makes a folder with a public file, on the list, and a secret one.
fn folder() -> Dir {
    let dir = Dir::new();
    dir.write("public", "for all\n");
    dir.write("secret", "for nobody\n");
    dir
}

#[track_caller]
fn log_of(dir: &Dir) -> String {
    dir.read("zigsvc-opener.log")
}

// ----- what is on the list ------------------------------------------------------

#[test]
fn what_is_on_the_list_is_handed_out_and_the_rest_is_denied_and_logged() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let answer = ask(&dir, dir.path("public"));
    assert_eq!(answer.content(), "for all\n");
    let flags = rustix::fs::fcntl_getfl(&answer.files[0]).unwrap();
    assert_eq!(flags & (OFlags::RWMODE | OFlags::NONBLOCK), OFlags::RDONLY);
    assert_eq!(ask(&dir, dir.path("secret")).words(), "DENIED");
    let line = format!(
        "[WARN] denied to uid {} (pid {}): {}",
        rustix::process::geteuid().as_raw(),
        std::process::id(),
        dir.path("secret").display()
    );
    wait_until("the denial is logged", || log_of(&dir).contains(&line));
}

#[test]
fn only_the_very_text_of_an_entry_is_on_the_list() {
    let dir = folder();
    fs::create_dir(dir.path("x")).unwrap();
    symlink(dir.path("public"), dir.path("link")).unwrap();
    fs::hard_link(dir.path("secret"), dir.path("hard")).unwrap();
    start(&dir, &["public"], &[]);
    let (own, folder) = (dir.path("public").display().to_string(), dir.as_arg());
    let others = [
        "".to_owned(),
        "/".to_owned(),
        folder.to_owned(),
        format!("{folder}/x/../public"),
        format!("{folder}//public"),
        format!("/{own}"),
        format!("{folder}/./public"),
        format!("{own}/"),
        format!("{own} "),
        format!(" {own}"),
        format!("{own}\r"),
        format!("{own}\0"),
        format!("{own}\0{folder}/secret"),
        format!("{folder}/secret\0{own}"),
        "public".to_owned(),
        own[1..].to_owned(),
        format!("{folder}/link"),
        format!("{folder}/hard"),
        format!("{folder}/Public"),
        format!("{own}{}", "x".repeat(5000)),
        format!("/{}", "x".repeat(254)),
        format!("/{}", "x".repeat(255)),
        "\x01\x02\x03\u{ff}".to_owned(),
    ];
    for other in others {
        assert_eq!(ask_raw(&dir, format!("{other}\n")).words(), "DENIED", "{other:?}");
    }
    assert_eq!(ask(&dir, &own).content(), "for all\n");
}

#[test]
fn a_path_may_end_with_the_input_and_come_in_single_bytes() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let path = dir.path("public").display().to_string();
    let client = Client::new(&dir);
    client.send(&path);
    assert!(client.is_silent_for(Duration::from_millis(100)), "half a request is none");
    client.end();
    assert_eq!(client.answer().content(), "for all\n");
    let client = Client::new(&dir);
    for byte in format!("{path}\n").bytes() {
        assert!(client.send([byte]));
    }
    assert_eq!(client.answer().content(), "for all\n");
    let client = Client::new(&dir);
    client.end();
    assert_eq!(client.answer().words(), "DENIED");
}

#[test]
fn a_path_that_is_too_long_is_denied_before_its_end() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let client = Client::new(&dir);
    client.send("y".repeat(255));
    assert!(client.is_silent_for(Duration::from_millis(100)));
    client.send("y");
    assert_eq!(client.answer().words(), "DENIED");
    let cut = format!("{}… (longer than 255 bytes)", "y".repeat(255));
    wait_until("it is logged", || log_of(&dir).contains(&cut));
    // A client that never reads sends more than a socket buffer holds: the answer still comes.
    let client = Client::new(&dir);
    let mut sent = 0;
    while sent < 2_000_000 && client.send("z".repeat(10_000)) {
        sent += 10_000;
    }
    if let Some(answer) = client.try_answer() {
        assert_eq!(answer.words(), "DENIED");
    }
}

#[test]
fn a_connection_is_one_request() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let line = format!("{}\n", dir.path("public").display());
    for request in [line.repeat(3), format!("{line}{}", "x".repeat(3000))] {
        assert_eq!(ask_raw(&dir, request).content(), "for all\n");
    }
    let answer = ask_raw(&dir, format!("{}\n{line}", dir.path("secret").display()));
    assert_eq!(answer.words(), "DENIED");
}

#[test]
fn a_reload_changes_the_list_whole_or_not_at_all() {
    let dir = folder();
    let config = |allow: &str| dir.write("zigsvc.conf", format!("allow = [{allow}]\nlog_max = \"0\"\n"));
    let entry = |name: &str| format!("\"{}\"", dir.path(name).display());
    config(&entry("public"));
    dir.start_service("opener", &[]);
    assert_eq!(ask(&dir, dir.path("secret")).words(), "DENIED");
    config(&entry("secret"));
    dir.zigsvc(&["reload", "opener"]).expect(0);
    wait_until("it is in force", || ask(&dir, dir.path("secret")).text == "F");
    assert_eq!(ask(&dir, dir.path("public")).words(), "DENIED");
    config("\"relative\"");
    dir.zigsvc(&["reload", "opener"]).expect(6);
    kill(dir.lock_holder("zigsvc-opener.pid").unwrap(), "HUP");
    wait_until("it is refused", || log_of(&dir).contains("config not reloaded"));
    assert_eq!(ask(&dir, dir.path("secret")).content(), "for nobody\n");
    config("");
    dir.zigsvc(&["reload", "opener"]).expect(0);
    wait_until("nothing is allowed", || ask(&dir, dir.path("secret")).text == "DENIED");
}

#[test]
fn denials_are_all_counted_and_few_are_logged() {
    let dir = folder();
    let pid = start(&dir, &["public"], &[]);
    for number in 0..50 {
        assert_eq!(ask_raw(&dir, format!("/no/{number}\x1b[2J\n")).words(), "DENIED");
    }
    kill(pid, "USR2");
    wait_until("the status is logged", || log_of(&dir).contains("status: "));
    let log = log_of(&dir);
    assert!(log.contains(" opened=0 denied=50 failed=0 worker="), "{log}");
    assert_eq!(log_lines_matching(&log, "denied to uid"), 10, "{log}");
    assert!(log.contains("): /no/0\\x1b[2J\n"), "{log}");
}

// ----- what a path leads to -------------------------------------------------------

#[test]
fn an_entry_that_is_a_link_leads_where_it_led_when_it_was_loaded() {
    let dir = folder();
    fs::create_dir(dir.path("folder")).unwrap();
    dir.write("folder/file", "in the folder\n");
    symlink("public", dir.path("link")).unwrap();
    symlink("folder", dir.path("way")).unwrap();
    symlink(dir.path("later"), dir.path("dangling")).unwrap();
    let pid = start(&dir, &["link", "way/file", "dangling"], &[]);
    assert_eq!(ask(&dir, dir.path("link")).content(), "for all\n");
    assert_eq!(ask(&dir, dir.path("way/file")).content(), "in the folder\n");
    assert_eq!(ask(&dir, dir.path("dangling")).words(), "open failed: ENOENT");
    dir.write("later", "came later\n");
    assert_eq!(ask(&dir, dir.path("dangling")).content(), "came later\n");
    for name in ["link", "way"] {
        fs::remove_file(dir.path(name)).unwrap();
    }
    symlink("secret", dir.path("link")).unwrap();
    symlink("nowhere", dir.path("way")).unwrap();
    assert_eq!(ask(&dir, dir.path("link")).content(), "for all\n");
    assert_eq!(ask(&dir, dir.path("way/file")).content(), "in the folder\n");
    // A user that may change the configuration may order it again.
    kill(pid, "HUP");
    wait_until("it is loaded again", || ask(&dir, dir.path("link")).content() == "for nobody\n");
    assert_eq!(ask(&dir, dir.path("way/file")).words(), "open failed: ENOENT");
}

#[test]
fn what_became_a_link_after_the_load_is_not_followed() {
    let dir = folder();
    fs::create_dir(dir.path("folder")).unwrap();
    fs::create_dir(dir.path("other")).unwrap();
    dir.write("folder/file", "in the folder\n");
    dir.write("other/file", "in the other\n");
    start(&dir, &["public", "folder/file"], &[]);
    fs::remove_file(dir.path("public")).unwrap();
    symlink("secret", dir.path("public")).unwrap();
    assert_eq!(ask(&dir, dir.path("public")).words(), "open failed: ELOOP");
    assert_eq!(ask(&dir, dir.path("folder/file")).content(), "in the folder\n");
    fs::rename(dir.path("folder"), dir.path("moved")).unwrap();
    symlink("other", dir.path("folder")).unwrap();
    if require_native("QEMU has no openat2, which alone sees a link in the middle") {
        assert_eq!(ask(&dir, dir.path("folder/file")).words(), "open failed: ELOOP");
    }
}

#[test]
fn only_regular_files_are_opened() {
    let dir = folder();
    fs::create_dir(dir.path("folder")).unwrap();
    rustix::fs::mknodat(CWD, dir.path("fifo").to_str().unwrap(), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _listener = UnixListener::bind(dir.path("socket")).unwrap();
    start(&dir, &["folder", "fifo", "socket", "/dev/null", "none", "public/x", "public"], &[]);
    let begun = Instant::now();
    for (name, errno) in [
        ("folder", "EISDIR"),
        ("fifo", "EINVAL"),
        ("socket", "EINVAL"),
        ("/dev/null", "EINVAL"),
        ("none", "ENOENT"),
        ("public/x", "ENOTDIR"),
    ] {
        assert_eq!(ask(&dir, dir.path(name)).words(), format!("open failed: {errno}"), "{name}");
    }
    assert!(begun.elapsed() < crate::support::patience(), "a FIFO without a writer holds nobody up");
    fs::remove_file(dir.path("public")).unwrap();
    assert_eq!(ask(&dir, dir.path("public")).words(), "open failed: ENOENT");
    dir.write("public", "again\n");
    assert_eq!(ask(&dir, dir.path("public")).content(), "again\n");
}

#[test]
fn a_file_that_becomes_a_link_between_look_and_open_never_shows_another_file() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = crate::support::control::SetOnDrop(&over);
        scope.spawn(|| {
            let mut names = (0..).map(|number| dir.path(["public.a", "public.b"][number % 2]));
            while !over.load(Ordering::Relaxed) {
                let (link, file) = (names.next().unwrap(), names.next().unwrap());
                symlink("secret", &link).unwrap();
                fs::rename(&link, dir.path("public")).unwrap();
                fs::write(&file, "for all\n").unwrap();
                fs::rename(&file, dir.path("public")).unwrap();
            }
        });
        let (mut handed, mut refused) = (0, 0);
        let limit = Instant::now() + crate::support::patience();
        while (handed < 300 || refused < 300) && Instant::now() < limit {
            let answer = ask(&dir, dir.path("public"));
            match &answer.text[..] {
                "F" => {
                    assert_eq!(answer.content(), "for all\n");
                    handed += 1;
                }
                "open failed: ELOOP" => refused += 1,
                other => panic!("{other}"),
            }
        }
        assert!(handed > 10 && refused > 10, "{handed} {refused}");
    });
}

// ----- the command ------------------------------------------------------------------

#[test]
fn the_command_prints_what_it_is_handed_or_says_why_not() {
    let dir = folder();
    let big: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    dir.write("big", &big);
    let path = |name: &str| dir.path(name).display().to_string();
    let ran = dir.zigsvc(&["open", &path("public")]).expect(7);
    assert_eq!(ran.err, not_running(&dir, "opener", "zigsvc-opener.sock"));
    start(&dir, &["public", "big", "none"], &[]);
    let ran = dir.zigsvc(&["open", &path("public")]).expect(0);
    assert_eq!((&ran.out[..], &ran.err[..]), ("for all\n", ""));
    assert_eq!(dir.zigsvc(&["open", &path("big")]).expect(0).out, big);
    let ran = dir.zigsvc(&["open", &path("secret")]).expect(1);
    assert_eq!((ran.out, ran.err), (String::new(), format!("zigsvc: open: {}: DENIED\n", path("secret"))));
    let ran = dir.zigsvc(&["open", &path("none")]).expect(1);
    assert_eq!(ran.err, format!("zigsvc: open: {}: open failed: ENOENT\n", path("none")));
    for odd in ["", "public", "a\rb", &"x".repeat(300), &"x".repeat(5000)] {
        let ran = dir.zigsvc(&["open", odd]).expect(1);
        assert!(ran.err.ends_with("DENIED\n") || ran.err.len() == 640, "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    dir.zigsvc(&["open", "--", "-x"]).expect(1);
    dir.zigsvc(&["stop", "opener"]).expect(0);
    dir.zigsvc(&["open", &path("public")]).expect(7);
}

#[test]
fn the_command_line_says_what_it_lacks() {
    let dir = folder();
    for args in [
        &["open"][..],
        &["open", "/a", "/b"],
        &["open", "/a", "--"],
        &["open", "/a\n/b"],
        &["open", "--json", "/a"],
    ] {
        let ran = dir.zigsvc(args).expect(2);
        assert!(
            ran.err.starts_with("zigsvc: usage: ") && ran.err.ends_with("; see `zigsvc help open`\n"),
            "{ran:?}"
        );
    }
    assert!(dir.zigsvc(&["help", "open"]).expect(0).out.contains("PATH [-- CMD ARG...]"));
}

#[test]
fn the_file_is_the_standard_input_of_a_program_that_inherits_nothing_else() {
    let dir = folder();
    start(&dir, &["public"], &[]);
    let path = dir.path("public").display().to_string();
    let mut open = dir.command();
    open.env("MINE", "passed on");
    open.args(["open", &path, "--", "sh", "-c", "cat; echo $MINE; ls /proc/self/fd; exit 3", "--"]);
    let ran = finish(by_shell("exec \"$@\" 5</dev/null 9</dev/zero", &open), None);
    // `ls` itself has one descriptor more: that of the folder.
    if require_native("/proc shows QEMU's own process") {
        assert_eq!(ran.out, "for all\npassed on\n0\n1\n2\n3\n", "{ran:?}");
    }
    assert_eq!(ran.code, 3, "{ran:?}");
    dir.zigsvc(&["open", &path, "--", "no-such-program-anywhere"]).expect(127);
    let ran = dir.zigsvc(&["open", &path, "--", "./zigsvc-test-none"]).expect(127);
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    let ran = dir.zigsvc(&["open", &path, "--", &path]).expect(126);
    assert_eq!(ran.err, format!("zigsvc: open: {path}: execve: EACCES (permission denied)\n"));
    dir.zigsvc(&["open", "/etc/no", "--", "true"]).expect(1);
}

#[test]
fn nobody_who_reads_is_an_error_and_no_signal() {
    let dir = folder();
    dir.write("big", "x".repeat(500_000));
    start(&dir, &["big"], &[]);
    let mut open = dir.command();
    open.arg("open").arg(dir.path("big"));
    let mut child = open.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn without_room_for_the_descriptor_the_command_says_so() {
    if !require_native("QEMU needs descriptors of its own") {
        return;
    }
    let dir = folder();
    start(&dir, &["public"], &[]);
    let mut open = dir.command();
    open.arg("open").arg(dir.path("public"));
    // The three standard ones, and the socket.
    let few = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; ulimit -n 4; exec \"$@\"";
    let ran = finish(by_shell(few, &open), None).expect(1);
    assert!(ran.err.ends_with(": no room for its descriptor: EMFILE\n"), "{ran:?}");
}

#[test]
fn socat_is_a_client() {
    if !crate::support::require_tool("socat") {
        return;
    }
    let dir = folder();
    start(&dir, &["public"], &[]);
    let ask = |name: &str| {
        let mut socat = program("socat");
        socat.arg("-").arg(format!("UNIX-CONNECT:{}", dir.path("zigsvc-opener.sock").display()));
        finish(socat, Some(format!("{}\n", dir.path(name).display()).as_bytes())).out
    };
    assert_eq!((&ask("public")[..], &ask("secret")[..]), ("F", "DENIED"));
}

#[test]
fn anybody_may_ask() {
    let dir = folder();
    if !is_root() || !crate::support::control::require_users(&dir) {
        return;
    }
    fs::set_permissions(dir.path("public"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    start(&dir, &["public"], &[]);
    let nobody = crate::support::control::NOBODY;
    let ask = |name: &str| {
        let mut open = dir.command();
        open.arg("open").arg(dir.path(name));
        let user = nobody.to_string();
        let words = ["setpriv", "--reuid", &user[..], "--regid", &user[..], "--clear-groups"];
        let copy = dir.path("zigsvc");
        if !copy.exists() {
            dir.copy_program(crate::support::zigsvc().get_program(), "zigsvc");
        }
        let mut inner = program(copy);
        inner.args(open.get_args());
        finish(crate::support::through(&words, &inner), None)
    };
    if !crate::support::require_tool("setpriv")
        || !require(crate::support::runner().is_empty(), "a runner cannot be handed on")
    {
        return;
    }
    assert_eq!(ask("public").expect(0).out, "for all\n");
    ask("secret").expect(1);
    wait_until("the denial names the user", || {
        log_of(&dir).contains(&format!("denied to uid {nobody} (pid "))
    });
}
