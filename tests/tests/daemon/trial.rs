//! What happens while a model is on trial, to the real daemon.

use crate::push::{Pusher, bundle};
use crate::update::{bench, ending, expect_running};
use crate::{document, expect_state};
use rustix::process::Signal;
use system_tests::broker::{Broker, Subscriber};

#[test]
fn a_model_that_kills_the_daemon_on_its_first_frame_is_given_up() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    // Three seconds of each model: the first frame of the second one is well before the end.
    bench.set("UPDATE__TRIAL_FRAMES", "30");
    bench.set("UPDATE__ATTEMPTS_MAX", "2");
    let pusher = Pusher::connect(broker.port());
    pusher.offer("deadly", 2, &bundle(2, |_| {}));
    for attempt in 1..=2 {
        let daemon = bench.run();
        expect_state(&mut subscriber, "online");
        let first = subscriber.expect("the first frame of this run", document);
        assert_eq!(first["model"]["version"], 1, "attempt {attempt}");
        expect_running(&mut subscriber, 2);
        daemon.signal(Signal::KILL);
        daemon.wait();
        expect_state(&mut subscriber, "offline");
        let (_, list) = bench.model(&["list"]);
        assert!(list.contains("trial        small-test 2"), "{list}");
        assert!(list.contains(&format!("attempt {attempt} begun")), "{list}");
    }

    let daemon = bench.run();
    let (name, state) = ending(&mut subscriber, "deadly");
    assert_eq!(
        (name.as_str(), &state["reason"]),
        ("rolled_back", &"attempts_exceeded".into())
    );
    // Twice as long as a trial took: nothing begins another one.
    let mut frames = 0;
    subscriber.expect("frames of the model before", |heard| {
        let document = document(heard)?;
        assert_eq!(document["model"]["version"], 1, "{document}");
        frames += 1;
        (frames == 60).then_some(())
    });
    daemon.terminate();
    let (_, list) = bench.model(&["list"]);
    assert!(list.contains("quarantined  small-test 2"), "{list}");
    assert!(list.contains("attempts_exceeded"), "{list}");
}
