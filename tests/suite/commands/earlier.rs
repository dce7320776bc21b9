//! The files of 0.1.0 work: its configuration and a client of its control socket. Its
//! journal is in `jobs::spool`.

use super::support::Peer;
use crate::support::Dir;
use std::path::Path;

/// Returns a file of version 0.1.0, with `DIR` replaced by the folder of the test.
fn earlier(dir: &Dir, name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/earlier/0.1.0-a280011");
    std::fs::read_to_string(folder.join(name)).unwrap().replace("DIR", dir.as_arg())
}

/// Returns true if the line has this form, in which `*` stands for any text.
fn has_form(line: &str, form: &str) -> bool {
    let mut parts = form.split('*');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let parts: Vec<_> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let at =
            if is_last { rest.ends_with(part).then(|| rest.len() - part.len()) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn a_configuration_and_a_client_of_the_socket_of_0_1_0_work() {
    let dir = Dir::new();
    let config = earlier(&dir, "zigsvc.conf");
    dir.write("zigsvc.conf", &config);
    let effective = dir.zigsvc(&["check"]).expect(0).out;
    for line in config.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").unwrap();
        let shown = effective.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
        // A number in a list of accounts is shown as a name.
        let plain = |text: &str| text.replace('"', "");
        assert_eq!(plain(shown), plain(value), "{key}");
    }
    dir.start(&[]);
    let mut peer = Peer::connect(&dir);
    for (number, line) in earlier(&dir, "session").lines().enumerate() {
        match line.split_at(2) {
            ("> ", request) => peer.send(&format!("{request}\n")),
            (_, form) => {
                let answer = peer.line().unwrap_or_else(|| panic!("line {number}: no answer"));
                assert!(has_form(&answer, form), "line {}: {answer}", number + 1);
            }
        }
    }
}

#[test]
fn forms_are_compared_with_lines() {
    assert!(has_form("ok pid=7 state=running", "ok pid=* state=running"));
    assert!(has_form("ok pid=7 jobs=1 degraded=none", "ok pid=*degraded=none"));
    assert!(!has_form("ok pid=7 degraded=none more", "ok pid=*degraded=none"));
    assert!(has_form("ok", "ok") && !has_form("ok 1", "ok"));
}
