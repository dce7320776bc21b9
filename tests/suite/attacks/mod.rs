//! Attacks, tried for real, grouped by attacker (`docs/threats.md`, which also names the
//! tests of other files that show a defence).
//!
//! - `stranger.rs`: a local user without any rights
//! - `guest.rs`: a client that may only queue
//! - `environment.rs`: limits, arguments and variables at the start
//! - `handler.rs`: a handler that was taken over
//! - `worker.rs`: the opener's worker, taken over
//! - `peers.rs`: a program that listens in the place of a service
//! - `filesystem.rs`: names that others plant under the service's paths
//! - `races.rs`: names that others replace while a service of root starts
//! - `trust.rs`: folders, files and links of other users in the way of root

mod environment;
mod filesystem;
mod guest;
mod handler;
mod peers;
mod races;
mod stranger;
mod trust;
mod worker;

/// Checks that each test that `docs/threats.md` names exists.
#[test]
fn the_threat_model_names_no_test_that_is_not_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders = vec![root.join("tests"), root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let text = std::fs::read_to_string(root.join("docs/threats.md")).unwrap();
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 80, "{}", names.len());
    let missing: Vec<_> = names.iter().filter(|name| !sources.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
