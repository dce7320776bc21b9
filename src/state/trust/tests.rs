//! The rules, one component at a time and along whole paths.

use super::*;

const ROOT: TrustRule =
    TrustRule { euid: 0, egid: 0, user: None, user_configures: false, overflow_uid: None };
const WITH_USER: TrustRule = TrustRule { user: Some(900), ..ROOT };
const ORDINARY: TrustRule =
    TrustRule { euid: 1000, egid: 100, user: None, user_configures: false, overflow_uid: None };

const SUBJECTS: [Subject; 6] =
    [Subject::Config, Subject::Spool, Subject::Queue, Subject::Log, Subject::Runtime, Subject::Allowed];

fn folder(uid: u32, mode: u32) -> Component {
    Component { kind: ComponentKind::Folder, uid, gid: 50, mode, links: 2 }
}

fn regular(uid: u32, mode: u32) -> Component {
    Component { kind: ComponentKind::Regular, uid, gid: 50, mode, links: 1 }
}

fn link(uid: u32) -> Component {
    Component { kind: ComponentKind::Link, uid, gid: 50, mode: 0o777, links: 1 }
}

/// Judges a path of folders and links, and of a file at its end if `file` is true. Returns the
/// index and the fault of the first component that is not trusted.
fn judged(rule: &TrustRule, subject: Subject, file: bool, path: &[Component]) -> Option<(usize, TrustFault)> {
    let mut walk = TrustWalk::default();
    let last = path.len() - 1;
    path.iter().enumerate().find_map(|(index, component)| {
        let position = match (index, file) {
            (at, true) if at == last => Position::File,
            (at, true) if at + 1 == last => Position::Folder,
            (at, false) if at == last => Position::Folder,
            _ => Position::Way,
        };
        walk.judge(rule, subject, position, component).err().map(|fault| (index, fault))
    })
}

#[test]
fn root_trusts_folders_of_root_and_of_the_user_that_nobody_else_writes() {
    let root = folder(0, 0o755);
    for subject in SUBJECTS {
        assert_eq!(judged(&ROOT, subject, false, &[root, root]), None, "{subject:?}");
        let foreign = judged(&ROOT, subject, false, &[root, folder(900, 0o755), root]);
        assert_eq!(foreign, Some((1, TrustFault::Owner)), "{subject:?}");
        assert_eq!(judged(&WITH_USER, subject, false, &[root, folder(900, 0o755)]), None, "{subject:?}");
        let open = judged(&ROOT, subject, false, &[root, folder(0, 0o777), root]);
        assert_eq!(open, Some((1, TrustFault::Others)), "{subject:?}");
        assert_eq!(judged(&ROOT, subject, false, &[root, link(7), root]), Some((1, TrustFault::Owner)));
        assert_eq!(judged(&ROOT, subject, false, &[root, link(0), root]), None, "{subject:?}");
        assert_eq!(judged(&WITH_USER, subject, false, &[root, link(900), folder(900, 0o700)]), None);
    }
}

#[test]
fn a_group_that_may_write_matters_on_the_way_to_configuration_spool_and_queue() {
    for subject in SUBJECTS {
        let way = judged(&ROOT, subject, false, &[folder(0, 0o775), folder(0, 0o755)]);
        let end = judged(&ROOT, subject, false, &[folder(0, 0o755), folder(0, 0o775)]);
        let (on_way, at_end) = match subject {
            Subject::Config | Subject::Spool | Subject::Allowed => (true, true),
            Subject::Queue => (true, false),
            Subject::Log | Subject::Runtime => (false, false),
        };
        assert_eq!(way, on_way.then_some((0, TrustFault::Group)), "{subject:?}");
        assert_eq!(end, at_end.then_some((1, TrustFault::Group)), "{subject:?}");
    }
}

#[test]
fn in_a_sticky_folder_the_next_component_decides_and_no_spool_or_queue_is_one() {
    let tmp = folder(0, 0o1777);
    for subject in SUBJECTS {
        assert_eq!(judged(&ROOT, subject, false, &[tmp, folder(0, 0o700)]), None, "{subject:?}");
        let planted = judged(&ROOT, subject, false, &[tmp, folder(7, 0o700)]);
        assert_eq!(planted, Some((1, TrustFault::Owner)), "{subject:?}");
        let itself = judged(&ROOT, subject, false, &[tmp]);
        let refused = matches!(subject, Subject::Spool | Subject::Queue);
        assert_eq!(itself, refused.then_some((0, TrustFault::Others)), "{subject:?}");
    }
    for subject in [Subject::Config, Subject::Log, Subject::Runtime] {
        assert_eq!(judged(&ROOT, subject, true, &[tmp, regular(0, 0o644)]), None, "{subject:?}");
        let planted = judged(&ROOT, subject, true, &[tmp, regular(7, 0o644)]);
        assert_eq!(planted, Some((1, TrustFault::Owner)), "{subject:?}");
    }
    assert_eq!(judged(&ORDINARY, Subject::Config, true, &[tmp, regular(7, 0o600)]).unwrap().0, 1);
    assert_eq!(judged(&ORDINARY, Subject::Log, true, &[tmp, regular(7, 0o644)]).unwrap().0, 1);
    assert_eq!(judged(&ORDINARY, Subject::Log, true, &[tmp, regular(1000, 0o644)]), None);
}

#[test]
fn a_configuration_is_roots_own_file() {
    let etc = folder(0, 0o755);
    let config = |rule, file| judged(rule, Subject::Config, true, &[etc, file]).map(|(_, fault)| fault);
    assert_eq!(config(&ROOT, regular(0, 0o644)), None);
    assert_eq!(config(&ROOT, regular(7, 0o644)), Some(TrustFault::Owner));
    assert_eq!(
        config(&WITH_USER, regular(900, 0o644)),
        Some(TrustFault::Owner),
        "it could name files of root"
    );
    assert_eq!(config(&ROOT, regular(0, 0o646)), Some(TrustFault::Others));
    assert_eq!(config(&ROOT, regular(0, 0o664)), Some(TrustFault::Group));
    assert_eq!(config(&ROOT, Component { links: 2, ..regular(0, 0o644) }), None);
    let planted = [folder(900, 0o755), Component { links: 2, ..regular(0, 0o644) }];
    let planted = judged(&WITH_USER, Subject::Config, true, &planted);
    assert_eq!(planted, Some((1, TrustFault::SecondName)));
    let null = Component { kind: ComponentKind::Device, ..regular(0, 0o666) };
    assert_eq!(config(&ROOT, null), None, "/dev/null");
    assert_eq!(config(&ROOT, Component { uid: 7, ..null }), Some(TrustFault::Owner));
}

#[test]
fn a_log_belongs_to_root_or_the_user_and_others_cannot_write_or_plant_it() {
    let log = |rule, parent, file| judged(rule, Subject::Log, true, &[parent, file]).map(|(_, fault)| fault);
    let var = folder(0, 0o755);
    assert_eq!(log(&ROOT, var, regular(0, 0o640)), None);
    assert_eq!(log(&ROOT, var, regular(0, 0o660)), None, "a group that reads logs");
    assert_eq!(log(&ROOT, var, regular(0, 0o666)), Some(TrustFault::Others));
    assert_eq!(log(&ROOT, var, regular(7, 0o644)), Some(TrustFault::Owner));
    assert_eq!(log(&WITH_USER, var, regular(900, 0o644)), None);
    let second = Component { links: 2, ..regular(0, 0o640) };
    assert_eq!(log(&ROOT, var, second), None, "root made the other name");
    for parent in [folder(0, 0o775), folder(0, 0o1777), folder(900, 0o755)] {
        assert_eq!(log(&WITH_USER, parent, second), Some(TrustFault::SecondName), "{parent:?}");
    }
    assert_eq!(log(&ORDINARY, folder(1000, 0o755), second), None);
    let console = Component { kind: ComponentKind::Device, ..regular(0, 0o622) };
    assert_eq!(log(&ROOT, var, console), None);
}

#[test]
fn a_pid_file_behind_the_users_link_stays_among_the_users_files() {
    let root = folder(0, 0o755);
    let path = [root, link(900), root, regular(0, 0o644)];
    assert_eq!(judged(&WITH_USER, Subject::Runtime, true, &path), Some((2, TrustFault::LeavesUser)));
    let own = [root, link(900), folder(900, 0o755), regular(0, 0o644)];
    assert_eq!(judged(&WITH_USER, Subject::Runtime, true, &own), None);
    let below = [root, folder(900, 0o755), root, regular(0, 0o644)];
    assert_eq!(judged(&WITH_USER, Subject::Runtime, true, &below), None, "no link leads there");
    let mut walk = TrustWalk::default();
    walk.judge(&WITH_USER, Subject::Log, Position::Way, &root).unwrap();
    assert!(!walk.is_of_user);
    walk.judge(&WITH_USER, Subject::Log, Position::Way, &link(900)).unwrap();
    walk.judge(&WITH_USER, Subject::Log, Position::Folder, &root).unwrap();
    assert!(walk.is_of_user, "root must create nothing there");
}

#[test]
fn an_ordinary_user_judges_the_last_folder_and_its_own_group_counts_as_itself() {
    let own = folder(1000, 0o700);
    for subject in [Subject::Config, Subject::Spool, Subject::Queue, Subject::Log, Subject::Runtime] {
        let way = [folder(7, 0o777), link(7), own];
        assert_eq!(judged(&ORDINARY, subject, false, &way), None, "{subject:?}");
        let end = judged(&ORDINARY, subject, false, &[own, folder(7, 0o755)]);
        assert_eq!(end, Some((1, TrustFault::Owner)), "{subject:?}");
        let open = judged(&ORDINARY, subject, false, &[own, folder(1000, 0o777)]);
        assert_eq!(open, Some((1, TrustFault::Others)), "{subject:?}");
        let of_group = Component { gid: 100, ..folder(1000, 0o775) };
        assert_eq!(judged(&ORDINARY, subject, false, &[own, of_group]), None, "{subject:?}");
    }
    let others = judged(&ORDINARY, Subject::Spool, false, &[own, folder(1000, 0o775)]);
    assert_eq!(others, Some((1, TrustFault::Group)), "a group that is not its primary one");
}

#[test]
fn where_root_itself_has_no_number_the_owner_of_the_root_folder_counts_as_root() {
    let rule = TrustRule { overflow_uid: Some(65534), ..ROOT };
    let path = [folder(65534, 0o755), folder(65534, 0o755), regular(65534, 0o644)];
    assert_eq!(judged(&rule, Subject::Config, true, &path), None);
    assert_eq!(judged(&ROOT, Subject::Config, true, &path), Some((0, TrustFault::Owner)));
}
