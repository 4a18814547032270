//! The exchange of models between the update thread and the inference thread.

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ternwatch_bundle::testing::small_key;
use ternwatch_daemon::model::{self, Config, Loaded};
use ternwatch_daemon::update::slot::Slot;
use ternwatch_daemon::update::trial::Tally;
use ternwatch_detector::Isa;
use ternwatch_detector::testing::small_bundle;

fn loaded(seed: u64) -> Box<Loaded> {
    let (file, key) = small_bundle(seed);
    let config = Config {
        bundle: "/nonexistent".into(),
        key: "/nonexistent".into(),
        roots: "".into(),
        score_min: 0.0,
        iou_max: 0.0,
        isa: "auto".into(),
        threads: 1,
    };
    assert_eq!(key, small_key().public_key());
    let keys = [key].into_iter().collect();
    let bundle = model::verify(&keys, Path::new("it"), &file).expect("signed");
    let isa = Isa::detect();
    Box::new(model::prepare(&config, isa, Path::new("it"), &bundle).expect("a model"))
}

#[test]
fn the_inference_thread_takes_a_model_between_frames_and_gives_the_old_one_back() {
    let slot = Arc::new(Slot::default());
    let (mut old, new) = (loaded(1), loaded(2));
    let (old_name, new_name) = (old.identity.sha256.clone(), new.identity.sha256.clone());
    let frames = std::thread::spawn({
        let slot = slot.clone();
        let new_name = new_name.clone();
        move || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while old.identity.sha256 != new_name {
                assert!(Instant::now() < deadline, "waited for the model");
                slot.examined(3, Duration::from_millis(2));
                slot.take(|next| mem::swap(&mut *old, next));
            }
            slot.examined(7, Duration::from_millis(5));
        }
    });
    let retired = slot.exchange(new, Duration::from_secs(60)).expect("taken");
    assert_eq!(retired.identity.sha256, old_name);
    frames.join().expect("no panic");
    // The new model's frames are counted anew.
    let expected = Tally {
        frames: 1,
        detections: 7,
        inference: Duration::from_millis(5),
    };
    assert_eq!(slot.tally(), expected);
}

#[test]
fn a_model_that_nobody_takes_comes_back_and_is_not_taken_later() {
    let slot = Slot::default();
    let new = loaded(2);
    let name = new.identity.sha256.clone();
    let back = slot
        .exchange(new, Duration::from_millis(10))
        .expect_err("nobody is there");
    assert_eq!(back.identity.sha256, name);
    slot.take(|_| panic!("it was taken back"));
}
