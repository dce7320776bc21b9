//! Fuzzes the input of the collector, which is JSON objects of metrics, and the messages
//! between the two processes of the opener.

use super::{Choices, assert_plain, written};
use zigsvc::limits::{CLIENT_INPUT_BYTES, CLIENTS_MAX};
use zigsvc::proto::collector::{Metric, Next, next, push_line, push_object};
use zigsvc::proto::decimal::Decimal;
use zigsvc::proto::opener::{PathRequest, RequestId, ToMain, ToWorker, path_request};

/// An item in a stream of objects.
#[derive(PartialEq, Debug)]
enum Item {
    Metric(Metric),
    Wrong,
}

/// Reads `bytes` as the collector does: through a buffer of the size of a client's, `piece`
/// bytes at a time.
fn items(bytes: &[u8], piece: usize) -> Vec<Item> {
    let (mut items, mut held, mut fed, mut skipping) = (Vec::new(), Vec::new(), 0, false);
    loop {
        let room = CLIENT_INPUT_BYTES - held.len();
        assert!(room > 0, "the buffer is full, and nothing was taken from it");
        let more = piece.clamp(1, room).min(bytes.len() - fed);
        held.extend_from_slice(&bytes[fed..fed + more]);
        fed += more;
        let ended = fed == bytes.len();
        loop {
            let (used, goes_on) = match next(&held, skipping, ended) {
                Next::Partial(blanks) => (blanks, false),
                Next::Metric(metric, used) => {
                    assert!(used > 0);
                    items.push(Item::Metric(metric));
                    (used, true)
                }
                Next::Wrong(_, used, end) => {
                    items.push(Item::Wrong);
                    skipping = !end;
                    (used, true)
                }
                Next::Discard(used, end) => {
                    skipping = !end;
                    (used, end)
                }
            };
            assert!(used <= held.len());
            held.drain(..used);
            if !goes_on {
                break;
            }
        }
        if ended {
            return items;
        }
    }
}

/// Checks that a stream of metrics has the same items in one piece and in many. Each metric
/// must be written as JSON that another parser understands, and be read again as it was.
pub fn metric(data: &[u8]) {
    let whole = items(data, usize::MAX);
    assert_eq!(items(data, 1), whole);
    assert_eq!(items(data, 7), whole);
    for item in &whole {
        let Item::Metric(Metric { name, value }) = item else { continue };
        let text = written(4096, |out| push_object(name, *value, out));
        assert_eq!(
            items(text.trim_ascii_end(), usize::MAX),
            [Item::Metric(Metric { name: name.clone(), value: *value })]
        );
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["name"].as_str().unwrap().as_bytes(), &name[..]);
        assert_plain(written(4096, |out| push_line(name, *value, Some(2), out)).trim_ascii_end());
        let digits = written(64, |out| value.emit(out));
        assert_eq!(Decimal::parse(&digits), Some(*value));
    }
    // The bytes of one object are JSON for another parser, too.
    if let Next::Metric(metric, used) = next(data, false, true) {
        let json: serde_json::Value = serde_json::from_slice(&data[..used]).unwrap();
        assert_eq!(json["name"].as_str().unwrap().as_bytes(), &metric.name[..]);
    }
}

/// Checks that exactly those messages of the opener's processes are accepted that can be
/// written. A path that a client sends passes both processes unchanged, however it is divided
/// into reads.
pub fn message(data: &[u8]) {
    if let Ok(request) = ToMain::parse(data) {
        assert_eq!(request.emit(), data);
    }
    if let Ok(answer) = ToWorker::parse(data) {
        assert_eq!(answer.emit(), data);
    }
    // The path of a client is known as soon as it is whole, and does not depend on later
    // bytes.
    let alone = path_request(data, false);
    if let Some(found) = alone {
        assert!(found.path.len() <= 255);
        let more = [data, b"more\n"].concat();
        let again = path_request(&more, true).unwrap();
        assert_eq!((again.path, again.too_long), (found.path, found.too_long));
        assert_eq!(found.too_long, !data.iter().take(256).any(|byte| *byte == b'\n'));
    }
    let whole = path_request(data, true).unwrap();
    for length in 0..data.len().min(300) {
        if let Some(found) = path_request(&data[..length], false) {
            assert_eq!((found.path, found.too_long), (whole.path, whole.too_long), "known too early");
        }
    }
    written_is_read(whole, &mut Choices(data));
}

/// Checks that each message that is written is read as it was.
fn written_is_read(request: PathRequest<'_>, choices: &mut Choices<'_>) {
    let request_id = RequestId { slot: choices.byte() % CLIENTS_MAX as u8, serial: choices.number() as u32 };
    let (pid, uid, errno) =
        (choices.number() as u32, choices.number() as u32, 1 + choices.below(4095) as u32);
    let requests = [
        ToMain::Open { request_id, pid, uid, request },
        ToMain::Alive,
        ToMain::ChrootFailed(errno),
        ToMain::PrivDropFailed(errno),
    ];
    for request in requests {
        assert_eq!(ToMain::parse(&request.emit()), Ok(request));
    }
    for answer in [
        ToWorker::Opened(request_id),
        ToWorker::Denied(request_id),
        ToWorker::Failed(request_id, errno),
        ToWorker::Listener(pid.max(1)),
    ] {
        assert_eq!(ToWorker::parse(&answer.emit()), Ok(answer));
    }
}
