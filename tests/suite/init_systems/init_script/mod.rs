//! The init script of `init.d`, as LSB, BusyBox and Buildroot run it, with the
//! real binary: under dash and BusyBox ash, with BusyBox's start-stop-daemon at
//! hand, with dpkg's, and with no tools at all in PATH.
//!
//! Changing this: a new action of the script belongs into `ACTIONS`, into
//! `every_action_tells_the_truth`, and into `cases.rs` if it passes codes on.

mod board;
mod cases;
use crate::support::{
    Dir, find, finish, install, is_root, program, require, require_native, require_root, wait_until, zigsvc,
};
use board::{Board, Bystander, INIT_D, Shell, Tools, gone, on_every_board, under_every_shell};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

const ACTIONS: [&str; 7] = ["start", "stop", "restart", "try-restart", "reload", "force-reload", "status"];

#[test]
fn every_action_tells_the_truth() {
    on_every_board(|board, _| {
        // Stopped.
        board.expect("status", 3);
        assert_eq!(board.expect("stop", 0).out, "Stopping zigsvc: OK\n");
        let refused = board.expect("reload", 7);
        assert_eq!(refused.out, "Reloading zigsvc: FAIL\n");
        assert!(refused.err.starts_with("zigsvc: "), "{refused:?}");
        assert_eq!(board.expect("force-reload", 0).out, "Reloading zigsvc: OK (not running)\n");
        assert_eq!(board.expect("try-restart", 0).out, "Restarting zigsvc: OK (not running)\n");
        board.expect("status", 3);
        assert_eq!(board.starts(), 0);

        // Running.
        assert_eq!(board.expect("start", 0).out, "Starting zigsvc: OK\n");
        let first = board.pid();
        assert!(board.dir.read("zigsvc.log").contains(&format!("daemon started, pid={first}\n")));
        assert!(!board.expect("status", 0).out.is_empty());
        assert_eq!(board.expect("start", 0).out, "Starting zigsvc: OK (already running)\n");
        assert_eq!((board.pid(), board.starts()), (first, 1));
        for (action, count) in [("reload", 1), ("force-reload", 2)] {
            assert_eq!(board.expect(action, 0).out, "Reloading zigsvc: OK\n");
            wait_until("the reload is in the log", || {
                board.dir.read("zigsvc.log").matches("SIGHUP received, reloading config").count() == count
            });
        }
        assert_eq!(board.pid(), first);

        // Restarted: when the script reports it, the old one is gone and the new one is ready.
        assert_eq!(board.expect("restart", 0).out, "Restarting zigsvc: OK\n");
        let second = board.pid();
        assert_ne!(second, first);
        gone(first);
        board.expect("status", 0);
        assert_eq!(board.expect("try-restart", 0).out, "Restarting zigsvc: OK\n");
        let third = board.pid();
        assert_ne!(third, second);
        gone(second);

        // Stopped: when the script reports it, the service is gone.
        assert_eq!(board.expect("stop", 0).out, "Stopping zigsvc: OK\n");
        assert!(!board.dir.path("zigsvc.pid").exists());
        board.expect("status", 3);
        gone(third);
        board.expect("stop", 0);

        // Restart starts what is stopped. Dead is not stopped, and can be started.
        board.expect("restart", 0);
        board.crash();
        board.expect("status", 1);
        board.expect("reload", 7);
        board.expect("try-restart", 0);
        board.expect("status", 1);
        board.expect("start", 0);
        board.expect("status", 0);
        board.pid();
        board.expect("stop", 0);
        board.expect("status", 3);
    });
}

#[test]
fn start_stop_daemon_by_hand_agrees_with_the_script() {
    on_every_board(|board, tools| {
        if tools == Tools::None {
            return;
        }
        let pid_file = board.dir.path("zigsvc.pid").display().to_string();
        let daemon = board.daemon.display().to_string();
        let start =
            ["--start", "--pidfile", &pid_file, "--exec", &daemon, "--", "-d", board.dir.as_arg(), "start"];
        let stop = ["--stop", "--pidfile", &pid_file];

        // It does not start a second one.
        board.expect("start", 0);
        let first = board.pid();
        let refused = board.by_hand(&start);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert_eq!((board.pid(), board.starts()), (first, 1));
        board.expect("status", 0);

        // It stops it: without waiting, so we do.
        let stopped = board.by_hand(&stop);
        assert_eq!(stopped.code, 0, "{stopped:?}");
        gone(first);
        wait_until("the PID file is gone", || !board.dir.path("zigsvc.pid").exists());
        board.expect("status", 3);

        // It starts one, and passes its code on.
        let started = board.by_hand(&start);
        assert_eq!(started.code, 0, "{started:?}");
        let second = board.pid();
        board.expect("status", 0);
        assert_eq!(board.expect("start", 0).out, "Starting zigsvc: OK (already running)\n");
        assert_eq!((board.pid(), board.starts()), (second, 2));

        // A number that is left in the PID file does not keep it from starting.
        board.crash();
        let started = board.by_hand(&start);
        assert_eq!(started.code, 0, "{started:?}");
        assert_ne!(board.pid(), second);
        board.expect("stop", 0);
        let stopped = board.by_hand(&stop);
        assert_eq!(stopped.code, 1, "{stopped:?}");

        // A start that failed is not called a success.
        board.dir.write("zigsvc.conf", "nonsense = 1\n");
        let failed = board.by_hand(&start);
        assert_eq!(failed.code, 6, "{failed:?}");
    });
}

#[test]
fn a_foreign_number_in_the_pid_file_neither_blocks_a_start_nor_gets_a_signal() {
    on_every_board(|board, _| {
        let mut bystander = Bystander::new();
        let number = format!("{}\n", bystander.pid());
        board.expect("start", 0);
        board.crash();
        board.dir.write("zigsvc.pid", &number);
        board.expect("status", 1);
        board.expect("stop", 0);
        board.expect("reload", 7);
        assert!(bystander.unharmed());

        board.expect("start", 0);
        let pid = board.pid();
        assert_ne!(pid, bystander.pid());

        // Overwritten while it runs: the lock still knows.
        board.dir.write("zigsvc.pid", &number);
        board.expect("status", 0);
        board.expect("stop", 0);
        gone(pid);
        assert!(bystander.unharmed());
    });
}

#[test]
fn starts_at_the_same_time_leave_one_service() {
    on_every_board(|board, _| {
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let mut start = board.script(&[], &["start"]);
                start.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut start in starts {
            assert_eq!(start.wait().unwrap().code(), Some(0));
        }
        assert_eq!(board.starts(), 1);
        let pid = board.pid();
        board.expect("stop", 0);
        gone(pid);
    });
}

#[test]
fn without_proc_it_is_the_same() {
    let (Some(unshare), Some(mount)) = (find("unshare"), find("mount")) else { return };
    if !require_root() || !require_native("QEMU itself needs /proc") {
        return;
    }
    let hide = format!("{} -t tmpfs none /proc && exec \"$@\"", mount.display());
    let before =
        [unshare.as_os_str(), "-m".as_ref(), "/bin/sh".as_ref(), "-c".as_ref(), hide.as_ref(), "sh".as_ref()];
    let before = before.map(OsString::from);
    on_every_board(|board, _| {
        let expect = |action: &str, code: i32| {
            let ran = finish(board.script(&before, &[action]), None);
            assert_eq!(ran.code, code, "{:?}: {action}: {ran:?}", board.shell);
        };
        expect("status", 3);
        expect("start", 0);
        let first = board.pid();
        expect("start", 0);
        expect("status", 0);
        assert_eq!((board.pid(), board.starts()), (first, 1));
        expect("restart", 0);
        gone(first);
        board.crash();
        expect("status", 1);
        expect("start", 0);
        expect("stop", 0);
        expect("status", 3);
    });
}

#[test]
fn a_wrong_argument_is_2_and_shows_the_actions() {
    under_every_shell(|board| {
        for args in [&[][..], &["frobnicate"], &["Start"], &[""], &["start", "jobs"], &["status", "status"]] {
            let ran = board.run(args);
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
            assert!(ran.out.is_empty() && ran.err.starts_with("Usage: "), "{ran:?}");
            for action in ACTIONS {
                assert!(ran.err.contains(action), "{action}: {ran:?}");
            }
        }
        assert_eq!(fs::read_dir(board.dir.path("")).unwrap().count(), 0, "nothing was run");
    });
}

#[test]
fn an_action_that_only_other_scripts_have_is_3() {
    under_every_shell(|board| {
        let ran = board.expect("probe", 3);
        assert_eq!(ran.err, "zigsvc: probe: not implemented\n");
        assert_eq!(fs::read_dir(board.dir.path("")).unwrap().count(), 0, "nothing was run");
    });
}

#[test]
fn without_privilege_it_is_4() {
    let Some(setpriv) = find("setpriv") else { return };
    if !require_root() {
        return;
    }
    let nobody =
        [setpriv.as_os_str(), "--reuid=65534".as_ref(), "--regid=65534".as_ref(), "--clear-groups".as_ref()];
    let nobody = nobody.map(OsString::from);
    for shell in [Shell::Dash, Shell::Ash] {
        for tools in [Tools::BusyBox, Tools::Dpkg] {
            let Some(board) = Board::new(shell, tools) else { continue };
            let expect = |action: &str, err: &str| {
                let ran = finish(board.script(&nobody, &[action]), None);
                assert_eq!(ran.code, 4, "{action}: {ran:?}");
                assert!(ran.err.contains(err), "{action}: {ran:?}");
            };
            // The user `nobody` has to be able to read the script, its settings and DAEMON.
            fs::set_permissions(board.kit.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            for file in [Path::new(INIT_D).join("zigsvc"), board.daemon.clone(), board.kit.path("default")] {
                let mut test = program(&nobody[0]);
                test.args(&nobody[1..]).args(["test", "-r"]).arg(&file);
                if !require(test.status().unwrap().success(), "this checkout is not for everybody to read") {
                    return;
                }
            }
            // zigsvc reports it itself: it cannot look into the folder, or make it.
            expect("status", "zigsvc: ");
            board.configure(&format!("OPTIONS='-d {}'\n", board.kit.path("new").display()));
            expect("start", "zigsvc: ");
            expect("restart", "zigsvc: ");
            // zigsvc would not report it, because the user `nobody` would get a service of its own.
            board.configure("");
            for action in ACTIONS {
                expect(action, &format!("zigsvc: {action}: only root may do this"));
            }
        }
    }
}

#[test]
fn a_program_that_is_not_there_is_5() {
    under_every_shell(|board| {
        board.kit.write("plain", "");
        for name in ["missing", "bin", "plain"] {
            let missing = board.kit.path(name);
            let missing = missing.display();
            board.configure(&format!("DAEMON='{missing}'\n"));
            for action in ACTIONS {
                // The codes of status have other meanings: 4 is unknown.
                let ran = board.expect(action, if action == "status" { 4 } else { 5 });
                assert_eq!(ran.err, format!("zigsvc: {missing}: not installed\n"));
            }
        }
    });
}

#[test]
fn a_wrong_configuration_is_6() {
    under_every_shell(|board| {
        let options = board.options();
        board.expect("start", 0);
        let first = board.pid();

        // zigsvc's own: the service that runs is left alone.
        board.dir.write("zigsvc.conf", "interval = \"3s\"\nnonsense = 1\n");
        for action in ["reload", "force-reload", "restart", "try-restart"] {
            let ran = board.expect(action, 6);
            assert!(
                ran.out.ends_with(": FAIL\n") && ran.err.contains("zigsvc.conf:2: "),
                "{action}: {ran:?}"
            );
        }
        assert_eq!(board.pid(), first);
        // The mistake keeps no user from looking at the service, or from stopping it.
        board.expect("status", 0);
        board.expect("stop", 0);
        board.expect("status", 3);
        let ran = board.expect("start", 6);
        assert!(ran.out == "Starting zigsvc: FAIL\n" && ran.err.contains("zigsvc.conf:2: "), "{ran:?}");
        fs::remove_file(board.dir.path("zigsvc.conf")).unwrap();

        // That of the script.
        for wrong in [
            "SERVICES=",
            "SERVICES=' '",
            "if fi",
            "exit 0",
            "SERVICES=nonsense",
            "OPTIONS=\"$OPTIONS --nonsense\"",
        ] {
            board.configure(&format!("{options}{wrong}\n"));
            for action in ACTIONS {
                let ran = board.expect(action, if action == "status" { 4 } else { 6 });
                assert!(ran.err.contains("zigsvc: "), "{wrong}: {action}: {ran:?}");
            }
        }
        // The service that is right is started all the same.
        board.configure(&format!("{options}SERVICES='nonsense jobs'\n"));
        let ran = board.expect("start", 6);
        assert_eq!(ran.out, "Starting zigsvc-nonsense: FAIL\nStarting zigsvc: OK\n");
        board.pid();
        board.configure(&options);
        board.expect("stop", 0);
    });
}

#[test]
fn without_a_defaults_file_the_defaults_hold() {
    under_every_shell(|board| {
        if !require(!Path::new("/usr/sbin/zigsvc").exists(), "zigsvc is installed here") {
            return;
        }
        fs::remove_file(board.kit.path("default")).unwrap();
        assert_eq!(board.expect("start", 5).err, "zigsvc: /usr/sbin/zigsvc: not installed\n");
        // The sample says the same as no file at all, and so does all of it
        // without its comment signs.
        let sample = fs::read_to_string(format!("{INIT_D}/zigsvc.default")).unwrap();
        let uncommented = uncomment(&sample, |word| word.bytes().all(|byte| byte.is_ascii_uppercase()));
        for text in [&sample, &uncommented] {
            board.kit.write("default", text);
            assert_eq!(board.expect("start", 5).err, "zigsvc: /usr/sbin/zigsvc: not installed\n");
        }
        let settings: Vec<_> =
            uncommented.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(settings, ["SERVICES=\"jobs\"", "DAEMON=/usr/sbin/zigsvc", "OPTIONS=\"\""]);
        let script = fs::read_to_string(format!("{INIT_D}/zigsvc")).unwrap();
        for setting in settings {
            let bare = setting.replace("\"\"", "");
            assert!(script.lines().any(|line| line == setting || line == bare), "{setting}");
        }
    });
}

#[test]
fn buildroot_starts_a_copy_of_it_at_boot_and_stops_it_at_the_end() {
    under_every_shell(|board| {
        // As `cp` does: what the link points to.
        let folder = board.kit.path("init.d");
        fs::create_dir(&folder).unwrap();
        let copy = folder.join("S50zigsvc");
        install(&copy, &fs::read_to_string(format!("{INIT_D}/S50zigsvc")).unwrap());
        assert_eq!(fs::read(&copy).unwrap(), fs::read(format!("{INIT_D}/zigsvc")).unwrap());
        symlink("/nonexistent", folder.join("S60gone")).unwrap();
        // The loop that Buildroot's rcS and rcK come down to.
        let boot = "for i in \"$1\"/S??*; do [ -f \"$i\" ] || continue; \"$i\" \"$2\"; done";
        let run = |action: &str| {
            let mut command = program(&board.shell[0]);
            command.args(&board.shell[1..]).args(["-c", boot, "rcS"]).arg(&folder).arg(action);
            command.env("ZIGSVC_DEFAULTS", board.kit.path("default")).current_dir("/").stdin(Stdio::null());
            finish(command, None)
        };
        let started = run("start");
        assert_eq!(started.out, "Starting zigsvc: OK\n", "{started:?}");
        let pid = board.pid();
        assert_eq!(run("stop").out, "Stopping zigsvc: OK\n");
        gone(pid);
    });
}

#[test]
fn the_scripts_are_executable_and_have_an_lsb_header() {
    for name in ["zigsvc", "S50zigsvc"] {
        let path = format!("{INIT_D}/{name}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111, "{name}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#!/bin/sh\n### BEGIN INIT INFO\n"), "{name}");
        let header =
            text.split("### BEGIN INIT INFO\n").nth(1).unwrap().split("### END INIT INFO\n").next().unwrap();
        let mut keywords = BTreeMap::new();
        for line in header.lines() {
            // A line that continues a description has two blanks, or a tab.
            if line.starts_with("#  ") || line.starts_with("#\t") {
                continue;
            }
            let (keyword, value) = line.strip_prefix("# ").and_then(|line| line.split_once(": ")).unwrap();
            assert!(keywords.insert(keyword, value).is_none(), "{keyword} twice");
        }
        assert_eq!(keywords["Provides"], "zigsvc");
        assert_eq!(keywords["Default-Start"], "2 3 4 5");
        assert_eq!(keywords["Default-Stop"], "0 1 6");
        for keyword in ["Required-Start", "Required-Stop", "Short-Description", "Description"] {
            assert!(!keywords[keyword].is_empty());
        }
    }
}

/// Returns the text with every line `#WORD=VALUE` or `#WORD = VALUE` in force.
fn uncomment(text: &str, is_key: impl Fn(&str) -> bool) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.split_once('=').is_some_and(|(key, _)| is_key(key.trim_end())) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_sample_configuration_shows_every_key_at_its_default() {
    let sample = fs::read_to_string(format!("{INIT_D}/zigsvc.conf")).unwrap();
    assert!(sample.len() < 7000, "too much for small flash");
    assert!(sample.parse::<toml::Table>().unwrap().is_empty());
    let key =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    let uncommented = uncomment(&sample, key);
    let shown = uncommented.parse::<toml::Table>().unwrap();

    let dir = Dir::new();
    let check = |text: &str| {
        dir.write("conf", text);
        let mut command = zigsvc();
        command.arg("-c").arg(dir.path("conf")).arg("check");
        finish(command, None).expect(0).out.parse::<toml::Table>().unwrap()
    };
    let defaults = check(&sample);
    assert_eq!(check(&uncommented), shown);
    let keys = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&defaults), keys(&shown));
    for (key, value) in &defaults {
        // The paths shown are root's.
        if is_root() || !value.to_string().contains('/') || key == "allow" {
            assert_eq!(value, &shown[key], "{key}");
        }
    }
}
