//! Jobs from many machines: `mosquitto_sub -t jobs | zigsvc queue -`, as the
//! README says, with a real broker on 127.0.0.1.
//!
//! A message of QoS 1 is delivered at least once, and `queue -` queues a line
//! at least once. So what is checked is that nothing is missing.

use crate::support::{Dir, Ran, finish, processed, program, require_tool, through, wait_until};
use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A process, and what it has started, that end with their test, however that
/// ends.
struct Guard(Child);

impl Guard {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        // A group of its own: a shell is not all of its pipeline.
        let spawned = command.process_group(0).spawn();
        Self(spawned.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Waits for its end.
    #[track_caller]
    fn finish(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the process has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // After the wait its number may belong to another process.
        if let (Ok(None), Some(pid)) = (self.0.try_wait(), Pid::from_raw(self.0.id().cast_signed())) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// A broker of the test's own.
struct Broker {
    port: String,
    _process: Guard,
}

impl Broker {
    /// Starts one on a free port.
    #[track_caller]
    fn start(dir: &Dir) -> Self {
        for attempt in 0..5 {
            // Free now; another process may take it before the broker does.
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let log = format!("broker-{attempt}");
            dir.write(
                "mosquitto.conf",
                format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n\
                     max_queued_messages 0\nlog_dest stderr\nlog_type all\n"
                ),
            );
            let mut command = program("mosquitto");
            command.arg("-c").arg(dir.path("mosquitto.conf")).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(std::fs::File::create(dir.path(&log)).unwrap());
            let mut process = Guard::start(&mut command);
            // A connection would not tell it from another one on that port.
            let (mut is_up, mut has_ended) = (false, false);
            wait_until("the broker listens", || {
                has_ended = process.0.try_wait().unwrap().is_some();
                is_up = dir.read(&log).contains(" running\n");
                is_up || has_ended
            });
            if is_up {
                return Self { port: port.to_string(), _process: process };
            }
        }
        panic!("mosquitto does not start: {}", dir.read("broker-4"));
    }

    /// Returns the arguments that name the broker and the topic.
    fn arguments(&self) -> [&str; 8] {
        ["-h", "127.0.0.1", "-p", &self.port, "-q", "1", "-t", "jobs"]
    }

    /// Publishes each line of `input` as a message, and returns when the broker
    /// has acknowledged all of them.
    #[track_caller]
    fn publish(&self, input: &str) -> Ran {
        let mut command = program("mosquitto_pub");
        command.args(self.arguments()).arg("-l");
        finish(command, Some(input.as_bytes())).expect(0)
    }
}

/// The recipe of `docs/jobs.md`: a subscriber with a session of its own, and a
/// pipe into `queue -`.
struct Recipe {
    subscriber: Guard,
    queue: Guard,
}

impl Recipe {
    #[track_caller]
    fn start(dir: &Dir, broker: &Broker, name: &str) -> Self {
        Self::start_with(dir, broker, name, &["queue", "-"])
    }

    /// Starts the recipe with the words of `queue`.
    #[track_caller]
    fn start_with(dir: &Dir, broker: &Broker, name: &str, words: &[&str]) -> Self {
        let mut command = program("mosquitto_sub");
        command.args(broker.arguments()).args(["-i", name, "-c"]);
        let mut subscriber = Guard::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let mut command = dir.command();
        command.args(words).stdin(subscriber.0.stdout.take().unwrap());
        let queue = Guard::start(command.stdout(Stdio::null()));
        Self { subscriber, queue }
    }

    /// Ends the subscriber; what it has passed on is queued.
    #[track_caller]
    fn finish(mut self) {
        self.subscriber.0.kill().unwrap();
        assert_eq!(self.queue.finish(), Some(0));
    }
}

/// Waits until a message arrives, because a subscription takes a moment, and without one a
/// message goes nowhere.
#[track_caller]
fn wait_for_subscriber(dir: &Dir, broker: &Broker) {
    wait_until("a message arrives", || {
        broker.publish("hello\n");
        processed(dir).iter().any(|job| job == "hello")
    });
}

#[track_caller]
fn wait_for_all(dir: &Dir, jobs: &BTreeSet<String>) {
    wait_until("all jobs are processed", || {
        let seen: BTreeSet<String> = processed(dir).into_iter().collect();
        jobs.is_subset(&seen)
    });
}

fn has_all_tools() -> bool {
    require_tool("mosquitto") && require_tool("mosquitto_sub") && require_tool("mosquitto_pub")
}

/// Returns the jobs that publisher `name` sends.
fn jobs_of(name: &str, count: u32) -> String {
    (1..=count).map(|number| format!("{name} {number}\n")).collect()
}

/// Starts a broker, a service, and the recipe between them, subscribed.
#[track_caller]
fn feeding(dir: &Dir) -> (Broker, Recipe) {
    let broker = Broker::start(dir);
    dir.start(&["log_max=0"]);
    let recipe = Recipe::start(dir, &broker, "board");
    wait_for_subscriber(dir, &broker);
    (broker, recipe)
}

#[test]
fn messages_of_many_publishers_become_jobs() {
    if !has_all_tools() {
        return;
    }
    let dir = Dir::new();
    let (broker, recipe) = feeding(&dir);
    let texts = ["one", "two", "three", "four"].map(|name| jobs_of(name, 250));
    std::thread::scope(|scope| {
        for text in &texts {
            scope.spawn(|| broker.publish(text));
        }
    });
    wait_for_all(&dir, &texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect());
    // Those of one publisher are in its order.
    let from_one: Vec<String> = processed(&dir).into_iter().filter(|job| job.starts_with("one ")).collect();
    assert!(from_one.iter().map(String::as_str).eq(texts[0].lines()), "{from_one:?}");
    recipe.finish();
}

#[test]
fn messages_become_jobs_that_are_not_started_before_their_time() {
    if !has_all_tools() {
        return;
    }
    let dir = Dir::new();
    let broker = Broker::start(&dir);
    dir.start(&["log_max=0"]);
    let recipe = Recipe::start_with(&dir, &broker, "board", &["queue", "--after", "2s", "-"]);
    wait_for_subscriber(&dir, &broker);
    let (began, texts) = (std::time::Instant::now(), ["one", "two"].map(|name| jobs_of(name, 100)));
    std::thread::scope(|scope| {
        for text in &texts {
            scope.spawn(|| broker.publish(text));
        }
    });
    let is_early = || processed(&dir).iter().any(|job| job != "hello") && began.elapsed().as_secs() < 2;
    wait_until("some of them are due", || {
        assert!(!is_early(), "started before their time");
        processed(&dir).iter().any(|job| job != "hello")
    });
    // A death of the service neither loses one nor starts one early.
    let late = jobs_of("late", 100);
    broker.publish(&late);
    let scheduled = || crate::support::control::status(&dir, "scheduled");
    wait_until("they are queued", || scheduled() > 0);
    crate::support::kill_hard(dir.lock_holder("zigsvc.pid").unwrap());
    dir.start(&["log_max=0"]);
    wait_for_all(
        &dir,
        &texts.iter().chain([&late]).flat_map(|text| text.lines().map(str::to_owned)).collect(),
    );
    recipe.finish();
}

#[test]
fn a_restart_of_the_service_while_messages_flow_loses_none() {
    if !has_all_tools() {
        return;
    }
    let dir = Dir::new();
    let (broker, recipe) = feeding(&dir);
    let mut jobs = BTreeSet::new();
    for round in 0..4 {
        let texts = ["one", "two", "three"].map(|name| jobs_of(&format!("{name} {round}"), 200));
        std::thread::scope(|scope| {
            let publishers: Vec<_> = texts.iter().map(|text| scope.spawn(|| broker.publish(text))).collect();
            let before = processed(&dir).len();
            wait_until("they flow", || processed(&dir).len() > before);
            if round % 2 == 0 {
                dir.zigsvc(&["-o", "log_max=0", "restart"]).expect(0);
            } else {
                dir.zigsvc(&["stop"]).expect(0);
                // The publishers continue meanwhile, into the pipe and the broker.
                publishers.into_iter().for_each(|publisher| drop(publisher.join().unwrap()));
                dir.start(&["log_max=0"]);
            }
        });
        jobs.extend(texts.iter().flat_map(|text| text.lines().map(str::to_owned)));
    }
    wait_for_all(&dir, &jobs);
    recipe.finish();
}

#[test]
fn the_broker_keeps_the_messages_of_a_subscriber_that_is_away() {
    if !has_all_tools() {
        return;
    }
    let dir = Dir::new();
    let (broker, recipe) = feeding(&dir);
    recipe.finish();
    let text = jobs_of("kept", 100);
    broker.publish(&text);
    let recipe = Recipe::start(&dir, &broker, "board");
    wait_for_all(&dir, &text.lines().map(str::to_owned).collect());
    recipe.finish();
}

#[test]
fn the_recipe_works_as_one_line_of_a_shell() {
    if !has_all_tools() {
        return;
    }
    let dir = Dir::new();
    let broker = Broker::start(&dir);
    dir.start(&["log_max=0"]);
    // As many messages as are expected (-C), so that the pipeline ends.
    let mut queue = dir.command();
    queue.args(["queue", "-"]);
    let words = broker.arguments().join(" ");
    let script = format!("mosquitto_sub {words} -i board -c -C 3 | \"$@\"");
    let mut pipeline = through(&["sh", "-c", &script, "sh"], &queue);
    let mut pipeline = Guard::start(pipeline.stdout(Stdio::piped()));
    wait_for_subscriber(&dir, &broker);
    broker.publish("two\nthree\nfour\n");
    assert_eq!(pipeline.finish(), Some(0));
    wait_until("all are processed", || processed(&dir).len() >= 3);
    assert!(processed(&dir).contains(&"hello".to_owned()));
}
