//! The opener's worker, taken over: it speaks to the process that opens files as it likes,
//! by its own channel, which the tests take out of it (pidfd_getfd(2)).

use crate::support::opener::{Client, children, descriptors, start, worker};
use crate::support::{Dir, heartbeat, kill, patience, require, require_native, require_root, wait_until};
use core::mem::MaybeUninit;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_type};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Bytes of a message of the worker (`proto/opener.rs`).
const MESSAGE: usize = 272;

/// Returns the worker's end of the channel of the service `main`, or `None`, aloud, where
/// it is not available.
#[track_caller]
fn channel(main: u32) -> Option<OwnedFd> {
    let pid = worker(main);
    wait_until("the worker has settled", || descriptors(pid) == 5);
    let pidfd = pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty());
    let taken = |number| pidfd_getfd(pidfd.as_ref().ok()?, number, PidfdGetfdFlags::empty()).ok();
    let found = (3..16).filter_map(taken).find(|fd| socket_type(fd) == Ok(SocketType::SEQPACKET));
    require(found.is_some(), "descriptors of others cannot be had here (pidfd_getfd)");
    found
}

fn possible() -> bool {
    require_native("takes a descriptor out of the real process") && require_root()
}

/// Returns a request for `path`, as the worker would send it.
fn open(place: u8, path: &[u8]) -> Vec<u8> {
    let mut message = vec![1, place, 0, u8::try_from(path.len()).unwrap(), 7, 0, 0, 0];
    message.extend_from_slice(&1u32.to_le_bytes());
    message.extend_from_slice(&0u32.to_le_bytes());
    message.extend_from_slice(path);
    message.resize(MESSAGE, 0);
    message
}

fn send(channel: &OwnedFd, message: &[u8], with: &[&OwnedFd]) -> bool {
    let fds: Vec<_> = with.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(channel, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

/// Returns the next answer, and the number of descriptors that came with it.
#[track_caller]
fn answer(channel: &OwnedFd) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; 256];
    let mut result = None;
    wait_until("there is an answer", || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let Ok(message) =
            rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        else {
            return false;
        };
        let files = control.drain().map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => fds.count(),
            _ => 0,
        });
        result = Some((message.bytes, files.sum()));
        true
    });
    let (length, files) = result.unwrap();
    bytes.truncate(length);
    (bytes, files)
}

#[track_caller]
fn is_served(dir: &Dir) {
    wait_until("the next worker serves", || {
        let client = Client::new(dir);
        client.send(format!("{}\n", dir.path("public").display()));
        client.try_answer().is_some_and(|answer| answer.text == "F")
    });
}

#[test]
fn what_is_no_message_costs_the_worker_its_life_and_the_service_nothing() {
    if !possible() {
        return;
    }
    let behind_the_path = {
        let mut message = open(0, b"/x");
        message[MESSAGE - 1] = 1;
        message
    };
    let messages: [(&str, Vec<u8>); 9] = [
        ("nothing", vec![]),
        ("one byte", vec![1]),
        ("a byte less", open(0, b"/x")[..MESSAGE - 1].to_vec()),
        ("a byte more", [open(0, b"/x"), vec![0]].concat()),
        ("much more", vec![1; 100_000]),
        ("zeros", vec![0; MESSAGE]),
        ("ones", vec![0xFF; MESSAGE]),
        ("a place that there is not", open(16, b"/x")),
        ("bytes behind the path", behind_the_path),
    ];
    for (name, message) in messages {
        let dir = Dir::new();
        dir.write("public", "for all\n");
        let main = start(&dir, &["public"], &["interval=100ms"]);
        let Some(channel) = channel(main) else { return };
        // A start ends a moment after it is answered, and a file that was handed out is closed
        // a moment after that; each turn that beats comes after both.
        let beats = || heartbeat(&dir, "zigsvc-opener.health");
        let first_beat = beats();
        wait_until("the start has ended", || beats() >= first_beat + 2);
        let file: OwnedFd =
            rustix::fs::openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let before = descriptors(main);
        let first = worker(main);
        assert!(send(&channel, &message, &[&file, &file, &file]), "{name}");
        wait_until(name, || !children(main).is_empty() && worker(main) != first);
        is_served(&dir);
        let log = dir.read("zigsvc-opener.log");
        assert!(log.contains("sent what is no message") || log.contains("is gone"), "{name}: {log}");
        wait_until("what came along is closed", || descriptors(main) == before);
        dir.zigsvc(&["stop", "opener"]).expect(0);
    }
}

#[test]
fn a_worker_gets_what_is_on_the_list_and_nothing_else_whatever_it_says() {
    if !possible() {
        return;
    }
    let dir = Dir::new();
    dir.write("public", "for all\n");
    let main = start(&dir, &["public"], &["stale_after=30s"]);
    let Some(channel) = channel(main) else { return };
    set_socket_timeout(&channel, Timeout::Recv, Some(patience())).unwrap();
    let first = worker(main);
    // The worker is stopped, so that its answers come to this test.
    kill(first, "STOP");
    let public = dir.path("public").display().to_string();
    let paths = [
        "/etc/shadow".to_string(),
        format!("{public}/"),
        format!("{public}/../secret"),
        format!("/{public}"),
        format!("{public}\0"),
        format!("/proc/{main}/environ"),
        String::new(),
    ];
    for path in &paths {
        assert!(send(&channel, &open(3, path.as_bytes()), &[]));
        let (bytes, files) = answer(&channel);
        assert_eq!((&bytes[..2], files), (&[2, 3][..], 0), "{path:?}");
    }
    assert!(send(&channel, &open(3, public.as_bytes()), &[]));
    let (bytes, files) = answer(&channel);
    assert_eq!((&bytes[..2], files), (&[1, 3][..], 1));
    // It can lie about who asks; that is all, and no line is forged by it.
    assert!(send(&channel, &open(3, b"/x\n[ERROR] forged\x1b[1m"), &[]));
    answer(&channel);
    let log = dir.read("zigsvc-opener.log");
    assert!(log.contains("denied to uid 0 (pid 1): /x\\x0a[ERROR] forged\\x1b[1m"), "{log}");
    kill(first, "KILL");
    is_served(&dir);
}

#[test]
fn a_worker_that_floods_holds_up_neither_a_reload_nor_a_stop() {
    if !possible() {
        return;
    }
    let dir = Dir::new();
    dir.write("public", "for all\n");
    let main = start(&dir, &["public"], &[]);
    let Some(channel) = channel(main) else { return };
    let over = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = crate::support::control::SetOnDrop(&over);
        scope.spawn(|| {
            let mut alive = vec![0; MESSAGE];
            alive[0] = 2;
            while !over.load(core::sync::atomic::Ordering::Relaxed) {
                if !send(&channel, &alive, &[]) {
                    std::thread::yield_now();
                }
            }
        });
        kill(main, "HUP");
        wait_until("it has read its configuration", || {
            dir.read("zigsvc-opener.log").contains("reloading config")
        });
        is_served(&dir);
        let stopped = dir.zigsvc(&["stop", "opener"]).expect(0);
        assert!(stopped.out.contains("stopped"), "{stopped:?}");
    });
}
