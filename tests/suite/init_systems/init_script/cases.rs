//! A shell script that writes down its calls plays the results that the binary cannot be
//! made to give on demand: any code for any command, a death by signal.

use super::board::under_every_shell;
use crate::support::install;
use std::fs;

/// The answers of zigsvc (`COMMAND.SERVICE=CODE`), the action, the code of the script, and
/// the calls that zigsvc must have got from it.
struct Case {
    services: &'static str,
    answers: &'static str,
    action: &'static str,
    code: i32,
    calls: &'static str,
}

const fn case(
    services: &'static str,
    answers: &'static str,
    action: &'static str,
    code: i32,
    calls: &'static str,
) -> Case {
    Case { services, answers, action, code, calls }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Every service in its order, and back.
    case("jobs hub", "status.jobs=3 status.hub=3", "start", 0, "status jobs,start jobs,status hub,start hub"),
    case("jobs hub opener", "", "stop", 0, "stop opener,stop hub,stop jobs"),
    case("jobs hub", "", "restart", 0, "restart jobs,restart hub"),
    case("jobs hub", "", "reload", 0, "reload jobs,reload hub"),
    case("jobs hub", "", "status", 0, "status jobs,status hub"),
    // A service that does not run is not restarted; one that hangs is.
    case("jobs hub", "status.jobs=3", "try-restart", 0, "status jobs,status hub,restart hub"),
    case("jobs hub", "status.jobs=1 status.hub=4", "try-restart", 0, "status jobs,status hub,restart hub"),
    case("jobs", "status.jobs=6 restart.jobs=6", "try-restart", 6, "status jobs,restart jobs"),
    case("jobs hub", "status.jobs=3", "force-reload", 0, "status jobs,status hub,reload hub"),
    // A failure keeps nothing from being tried, and the first one counts.
    case("jobs hub", "status.jobs=3 start.jobs=6", "start", 6, "status jobs,start jobs,status hub"),
    case("jobs hub", "stop.hub=1 stop.jobs=4", "stop", 1, "stop hub,stop jobs"),
    case("jobs hub", "reload.jobs=7 reload.hub=6", "reload", 7, "reload jobs,reload hub"),
    // zigsvc's codes pass, 2 is about OPTIONS and SERVICES, all else is 1.
    case("jobs", "restart.jobs=1", "restart", 1, "restart jobs"),
    case("jobs", "restart.jobs=2", "restart", 6, "restart jobs"),
    case("jobs", "restart.jobs=4", "restart", 4, "restart jobs"),
    case("jobs", "restart.jobs=6", "restart", 6, "restart jobs"),
    case("jobs", "reload.jobs=7", "reload", 7, "reload jobs"),
    case("jobs", "restart.jobs=127", "restart", 1, "restart jobs"),
    case("jobs", "restart.jobs=KILL", "restart", 1, "restart jobs"),
    // Another process was faster; and a service that does not answer is no success.
    case("jobs", "status.jobs=3,0 start.jobs=1", "start", 0, "status jobs,start jobs,status jobs"),
    case("jobs", "status.jobs=3,3 start.jobs=1", "start", 1, "status jobs,start jobs,status jobs"),
    case("jobs", "status.jobs=4,4 start.jobs=1", "start", 1, "status jobs,start jobs,status jobs"),
    // The worst of several: unknown, then dead, then stopped.
    case("jobs hub opener", "status.hub=3", "status", 3, "status jobs,status hub,status opener"),
    case("jobs hub opener", "status.jobs=1 status.hub=3", "status", 1, "status jobs,status hub,status opener"),
    case("jobs hub opener", "status.jobs=3 status.hub=1", "status", 1, "status jobs,status hub,status opener"),
    case("jobs hub opener", "status.hub=4 status.opener=1", "status", 4, "status jobs,status hub,status opener"),
    case("jobs hub", "status.jobs=2 status.hub=3", "status", 4, "status jobs,status hub"),
    case("jobs", "status.jobs=KILL", "status", 4, "status jobs"),
];

#[test]
fn several_services_and_every_code_of_zigsvc() {
    under_every_shell(|board| {
        for (number, case) in CASES.iter().enumerate() {
            let folder = board.kit.path(&format!("case{number}"));
            fs::create_dir(&folder).unwrap();
            let daemon = folder.join("zigsvc");
            // Insists on the options, writes down the rest, and answers with the
            // first line of a file, if there is a next one only once.
            install(
                &daemon,
                &format!(
                    "#!/bin/sh\n[ \"$1,$2,$3,$4\" = '-o,/b*,-d,/x' ] || exit 99\nshift 4\n\
                     echo \"$*\" >>'{0}/calls'\nanswer='{0}'/$1.$2\n[ -e \"$answer\" ] || exit 0\n\
                     {{ read -r code; read -r next; }} <\"$answer\"\necho \"${{next:-$code}}\" >\"$answer\"\n\
                     [ \"$code\" != KILL ] || kill -KILL $$\nexit \"$code\"\n",
                    folder.display()
                ),
            );
            for answer in case.answers.split_whitespace() {
                let (call, codes) = answer.split_once('=').unwrap();
                fs::write(folder.join(call), codes.replace(',', "\n") + "\n").unwrap();
            }
            // Blanks separate options, and patterns are text.
            let settings = "OPTIONS='-o /b*  -d /x'\n";
            let settings = format!("DAEMON='{}'\nSERVICES='{}'\n{settings}", daemon.display(), case.services);
            board.configure(&settings);
            let ran = board.run(&[case.action]);
            let calls = fs::read_to_string(folder.join("calls")).unwrap_or_default();
            let what = format!("{} with {:?}: {ran:?}", case.action, case.answers);
            assert_eq!(calls.trim_end().replace('\n', ","), case.calls, "{what}");
            assert_eq!(ran.code, case.code, "{what}");
            if case.action != "status" {
                let lines = case.services.split_whitespace().count();
                assert_eq!(ran.out.lines().count(), lines, "{what}");
                assert_eq!(ran.out.contains("FAIL"), case.code != 0, "{what}");
            }
        }
    });
}
