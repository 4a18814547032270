//! Frames that show nothing new are skipped, and nobody is lost by that.

use super::bench::Bench;
use super::events::still_picture_of;
use serde_json::Value;
use system_tests::broker::{Broker, Subscriber, free_port};

/// Ten frames a second, whatever the filter makes of a picture that does not move.
fn bench(filter: &str, seconds: u32) -> Bench {
    let frames = (10 * seconds).to_string();
    let source = format!("testsrc=size=160x120:rate=10:duration=0.1,loop=loop=-1:size=1{filter}");
    // Lossless: what compression does to pictures that do not move is no matter here.
    let input = ["-f", "lavfi", "-i", &source, "-frames:v", &frames];
    let lossless = ["-c:v", "libx264", "-qp", "0"];
    let mut bench = Bench::with_video_of(&[&input[..], &lossless].concat(), free_port());
    bench.set("MQTT__ENABLED", "false");
    bench.set("STDOUT__ENABLED", "true");
    bench.set("PUBLISH__FRAMES", "false");
    bench.set("TRACK__STATIONARY_S", "2");
    bench.set("TRACK__UPDATE_S", "1");
    bench
}

/// What happened to whom, and how long they had been there; and how many frames were examined and skipped.
type Run = (Vec<(String, u64, f64)>, [u64; 2]);

fn run(bench: &Bench) -> Run {
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let text = std::fs::read_to_string(bench.path("stdout")).expect("readable");
    let events = text.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let (kind, track) = (event["type"].as_str()?, &event["track"]);
        let duration_s = track["duration_s"].as_f64().expect("a number");
        Some((
            kind.into(),
            track["id"].as_u64().expect("a number"),
            duration_s,
        ))
    });
    let (_, counts) = log.split_once("frames captured, ").expect("the last line");
    let mut counts = counts.split(' ').filter_map(|word| word.parse().ok());
    let counts = [(); 2].map(|()| counts.next().expect("a number"));
    (events.collect(), counts)
}

#[test]
fn in_a_still_picture_most_frames_are_skipped_and_who_stands_there_stays() {
    let mut bench = bench("", 30);
    let (events, [examined, skipped]) = run(&bench);
    assert_eq!(examined + skipped, 300);
    // All of the first seconds, until everybody counts as standing, and one a second afterwards.
    assert!((28..=80).contains(&examined), "{examined} of 300");
    bench.set("MOTION__ENABLED", "false");
    let (expected, counts) = run(&bench);
    assert_eq!(counts, [300, 0]);
    assert!(
        expected
            .iter()
            .filter(|(kind, ..)| kind == "update")
            .count()
            > 25,
        "the random model finds nobody who stays: {expected:?}"
    );
    assert_eq!(events, expected, "the same events as of every frame");
    bench.set("MOTION__ENABLED", "true");
    bench.set("PUBLISH__FRAMES", "true");
    let (_, counts) = run(&bench);
    assert_eq!(counts, [300, 0], "a document of every frame was asked for");
}

#[test]
fn somebody_who_walks_by_is_looked_at() {
    // As high as the smallest people that are found, 24 of 240 lines, from the tenth to the eighteenth second.
    let walker = "[still];color=c=gray:size=5x12:rate=10[walker];\
                  [still][walker]overlay=x='if(lt(t,10),-20,20*(t-10))':y=70:eval=frame:shortest=1";
    let mut walked = bench(walker, 20);
    let (events, [examined, skipped]) = run(&walked);
    assert_eq!(examined + skipped, 200);
    let (_, [without, _]) = run(&bench("", 20));
    // One of ten of those frames is examined without anybody.
    assert!(
        examined >= without + 70,
        "{examined}, without anybody {without}"
    );
    assert!(skipped >= 60, "{skipped} skipped in the ten seconds before");
    walked.set("MOTION__ENABLED", "false");
    let (expected, _) = run(&walked);
    assert_eq!(events, expected, "the same events as of every frame");
}

#[test]
fn the_statistics_tell_how_many_inferences_are_saved() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = still_picture_of(3000, broker.port());
    bench.set("CAMERA__VIDEO__PACE", "real-time");
    bench.set("PIPELINE__WHEN_BUSY", "drop-oldest");
    bench.set("TRACK__STATIONARY_S", "1");
    bench.set("PUBLISH__STATISTICS_S", "2");
    let daemon = bench.run();
    let mut before: Option<[u64; 3]> = None;
    subscriber.expect("an interval in which most frames are skipped", |heard| {
        let statistics = heard.document("site/pi/statistics")?;
        let frames = &statistics["frames"];
        let count = |key: &str| frames[key].as_u64().expect("a number");
        assert_eq!(count("at_rest"), 0, "{statistics}");
        let now = ["captured", "examined", "skipped"].map(count);
        let before = before.replace(now)?;
        let [captured, examined, skipped] = [0, 1, 2].map(|index| now[index] - before[index]);
        (captured >= 10 && skipped > 2 * examined).then_some(())
    });
    daemon.terminate();
}
