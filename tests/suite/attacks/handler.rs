//! A handler that was taken over: a program of the service's own user that wants to outlive
//! its job.

use crate::support::control::{out, start_script, status};
use crate::support::{Dir, alive, require_tool, wait_until};

/// A leader that goes to the group of the service and leaves a child in its own group: the
/// signals of the group then reach only the child.
const LEAVES_ITS_GROUP: &str = "exec perl -e '
    $SIG{TERM} = \"IGNORE\";
    if (fork == 0) { sleep 600; exit }
    setpgrp(0, getpgrp(getppid)) or die;
    open F, \">>\", \"out\"; print F \"$$\\n\"; close F;
    sleep 600;'";

#[test]
fn a_leader_that_leaves_its_group_is_ended_with_its_job() {
    if !require_tool("perl") {
        return;
    }
    let dir = Dir::new();
    start_script(&dir, LEAVES_ITS_GROUP, &["job_timeout=200ms", "stop_timeout=200ms", "retries=0"]);
    dir.zigsvc(&["queue", "x"]).expect(0);
    let leader: u32 = out(&dir, 1)[0].parse().unwrap();
    wait_until("the job is over", || status(&dir, "dead") == 1);
    wait_until("its leader is gone", || !alive(leader));
    // A stop ends it, too.
    dir.zigsvc(&["retry", "dead"]).expect(0);
    let leader: u32 = out(&dir, 2)[1].parse().unwrap();
    let stopped = dir.zigsvc(&["stop"]).expect(0);
    assert!(stopped.out.contains("stopped") && !alive(leader), "{stopped:?}");
}
