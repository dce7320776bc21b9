//! The manual page and bash's completion: both are written from the list of
//! commands, the options and the list of configuration keys, and checked in.
//!
//! A test fails when the files of `docs/` are not what the lists say. To write
//! them again:
//!
//! ```text
//! ZIGSVC_WRITE=1 cargo test --test suite manual::
//! ```
//!
//! Facts that no list has (signals, the meaning of exit codes) stand in
//! `manual/page.rs`; the purpose of a key comes from the comments of
//! `init.d/zigsvc.conf`.

mod completion;
mod page;

use crate::support::{Dir, finish, is_root, program, require, zigsvc};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use zigsvc::proto::service::Service;

/// Returns the path of a file of the project.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Insists that file `name` is `text`, or writes it. One test does this at a time, because
/// the others may need the file that is written.
#[track_caller]
fn holds(name: &str, text: &str) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock();
    let mut there = fs::read_to_string(file(name)).unwrap_or_default();
    if there != text && std::env::var_os("ZIGSVC_WRITE").is_some() {
        fs::write(file(name), text).unwrap();
        there = text.to_owned();
    }
    let differs = there.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        there == text,
        "{name} is not what the lists say ({differs:?}); ZIGSVC_WRITE=1 cargo test --test suite manual::"
    );
}

/// Returns true if there is a program `name` that starts; reports it if not.
#[track_caller]
fn have(name: &str) -> bool {
    let mut command = program("sh");
    command.args(["-c", &format!("command -v {name}")]).stdout(Stdio::null());
    require(command.status().is_ok_and(|status| status.success()), &format!("{name} is missing"))
}

/// Insists that the manual page is what the lists say. Returns its path.
#[track_caller]
fn manual_page() -> PathBuf {
    let sample = fs::read_to_string(file("init.d/zigsvc.conf")).unwrap();
    holds("docs/zigsvc.8", &page::render(&sample));
    file("docs/zigsvc.8")
}

/// Insists that the completion is what the lists say. Returns its path.
#[track_caller]
fn completion_script() -> PathBuf {
    holds("docs/zigsvc.bash", &completion::render());
    file("docs/zigsvc.bash")
}

#[test]
fn the_manual_page_is_what_the_lists_say() {
    manual_page();
}

#[test]
fn the_completion_is_what_the_lists_say() {
    completion_script();
}

#[test]
fn the_places_in_the_manual_page_are_those_of_root() {
    if !require(is_root(), "this test needs root") {
        return;
    }
    let dir = Dir::new();
    fs::write(dir.path("empty"), "").unwrap();
    let mut command = zigsvc();
    command.arg("-c").arg(dir.path("empty")).arg("check");
    let out = finish(command, None).expect(0).out;
    for (key, value) in page::defaults() {
        assert!(out.contains(&format!("\n{key} = {value}\n")), "{key} = {value} is not in:\n{out}");
    }
}

#[test]
fn mandoc_and_groff_have_nothing_to_say_about_the_manual_page() {
    if have("mandoc") {
        let mut lint = program("mandoc");
        lint.args(["-Tlint", "-Wstyle"]).arg(manual_page());
        let ran = finish(lint, None).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    }
    if have("groff") {
        let mut groff = program("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(manual_page());
        let ran = finish(groff, None).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    }
}

#[test]
fn the_manual_page_reads_as_written() {
    if !have("mandoc") {
        return;
    }
    let mut mandoc = program("mandoc");
    mandoc.args(["-Tascii", "-Owidth=78"]).arg(manual_page());
    let text = finish(mandoc, None).expect(0).out;
    // Letters are struck twice to be bold, and lines broken.
    let mut plain = String::new();
    for letter in text.chars() {
        if letter == '\u{8}' {
            plain.pop();
        } else {
            plain.push(letter);
        }
    }
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in
        ["NAME zigsvc - ", "\\xNN", "ID|dead", "-o KEY=VALUE", "queue - queues each line", "CMD ARG..."]
    {
        assert!(words.contains(wanted), "{wanted:?} is not in:\n{words}");
    }
    for command in zigsvc::cli::COMMANDS.iter() {
        let summary = page::sentence(command.summary).replace('`', "");
        assert!(words.contains(&summary), "{summary} is not in:\n{words}");
    }
}

#[test]
fn what_is_written_by_hand_names_every_command_and_every_service() {
    let text = |name: &str| fs::read_to_string(file(name)).unwrap();
    let page = text("docs/commands.md");
    // The cells of the first column: `stop [SERVICE]`, `reload`, `rotate`
    let cells: String = page.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>().join("\n");
    for command in zigsvc::cli::COMMANDS.iter() {
        let named = ["`", " ", "\\|"].iter().any(|end| cells.contains(&format!("`{}{end}", command.name)));
        assert!(named, "docs/commands.md has no row for {}", command.name);
    }
    for name in [
        "docs/commands.md",
        "init.d/zigsvc.default",
        "packaging/install.sh",
        "packaging/debian/prerm",
        "packaging/debian/postrm",
        "packaging/openwrt/Makefile",
        ".ci/budget",
        "tests/bench/sections/memory",
    ] {
        let text = text(name);
        let words: Vec<_> = text.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
        for service in Service::ALL {
            assert!(words.contains(&service.name()), "{name} does not name the service {}", service.name());
        }
    }
    // The idle code of every service lies together, in a section that the linker knows.
    let section = ".text.idle";
    assert!(text("link.ld").contains(&format!("*({section})")), "link.ld does not name {section}");
    for name in Service::ALL.map(Service::name) {
        let files = [format!("src/service/{name}.rs"), format!("src/service/{name}/mod.rs")];
        let code: String = files.iter().filter_map(|name| fs::read_to_string(file(name)).ok()).collect();
        assert!(code.contains(&format!("link_section = \"{section}\"")), "{name} is not in {section}");
    }
}

#[test]
fn the_map_names_files_that_are_there() {
    let map = fs::read_to_string(file("src/lib.rs")).unwrap();
    let folders = ["", "src", "src/service/jobs", "src/service/supervisor"];
    let mut count = 0;
    for name in map.lines().filter(|line| line.starts_with("//!")).flat_map(|line| line.split('`')) {
        let is_path = [".rs", ".md", ".conf", ".default"].iter().any(|end| name.ends_with(end));
        if is_path && !name.contains([' ', 'N']) {
            count += 1;
            assert!(folders.iter().any(|folder| file(folder).join(name).is_file()), "{name}");
        }
    }
    assert!(count > 50, "{count}");
}

/// Returns the words that bash offers for the last word of `line`, sorted.
#[track_caller]
fn offered(dir: &Dir, line: &[&str]) -> Vec<String> {
    let mut bash = program("bash");
    // As readline calls it: the function, the program, the word, the one before.
    let script = r#"
        . "$0" || exit 9
        [[ $(complete -p zigsvc) == *"-F _zigsvc zigsvc" ]] || exit 8
        COMP_WORDS=(zigsvc "$@") COMP_CWORD=$#
        compopt() { :; }
        _zigsvc zigsvc "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    bash.args(["--norc", "-c", script]).arg(completion_script()).args(line);
    bash.current_dir(dir.path("."));
    let ran = finish(bash, None).expect(0);
    assert_eq!(ran.err, "");
    let mut offers: Vec<_> = ran.out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    offers.sort();
    offers
}

#[test]
fn bash_completes_commands_options_services_keys_and_files() {
    if !have("bash") {
        return;
    }
    let dir = Dir::new();
    fs::write(dir.path("alpha.conf"), "").unwrap();
    fs::create_dir_all(dir.path("alps/programs")).unwrap();
    fs::write(dir.path("alps/programs/mosquitto.conf"), "").unwrap();
    let names: Vec<_> = zigsvc::cli::COMMANDS.iter().map(|command| command.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(offered(&dir, &[""]), sorted);
    for (line, wanted) in [
        (&["rel"][..], &["reload"][..]),
        (&["-"], &["-c", "-d", "-o"]),
        (&["status", "--"], &["--all", "--json", "--prometheus"]),
        (&["-d", "alps", "start", "mo"], &["mosquitto"]),
        (&["-d", "alps", "status", "--json", "mosq"], &["mosquitto"]),
        (&["-d", "alps", "signal", ""], &["collector", "hub", "jobs", "mosquitto", "opener", "supervisor"]),
        (&["-d", "alps", "signal", "mosquitto", "US"], &["USR1", "USR2"]),
        (&["-d", "alps", "rotate", "mo"], &[]),
        (&["status", "--json", "jo"], &["jobs"]),
        (&["list", ""], &["dead", "done", "running", "scheduled", "waiting"]),
        (&["list", "dead", ""], &[]),
        (&["retry", ""], &["dead"]),
        (&["-c", "al"], &["alpha.conf", "alps"]),
        (&["-d", "al"], &["alps"]),
        (&["-d", "alps", "sta"], &["start", "status"]),
        (&["-o", "log_l"], &["log_level="]),
        (&["-o", "log_level", "="], &["debug", "error", "info", "warn"]),
        (&["-o", "log_level", "=", "wa"], &["warn"]),
        (&["-o", "syslog", "=", "t"], &["true"]),
        (&["-o", "syslog", "=", "true", "relo"], &["reload"]),
        (&["run", "--ready-fd", ""], &[]),
        (&["run", "--ready-fd", "3", "jo"], &["jobs"]),
        (&["start", "supervisor", "--health", "al"], &["alpha.conf", "alps"]),
        (&["start", "supervisor", "--", "alp"], &["alpha.conf", "alps"]),
        (&["help", "versi"], &["version"]),
        (&["nonsense", ""], &[]),
    ] {
        assert_eq!(offered(&dir, line), wanted, "{line:?}");
    }
    let services: Vec<_> = offered(&dir, &["start", ""]);
    assert!(services.contains(&"supervisor".to_owned()), "{services:?}");
}

#[test]
fn the_completion_is_clean_under_shellcheck() {
    if !have("shellcheck") {
        return;
    }
    let mut shellcheck = program("shellcheck");
    shellcheck.args(["-s", "bash"]).arg(completion_script());
    let ran = finish(shellcheck, None);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
}
