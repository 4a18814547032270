//! The rendered scene as a sequence of MOTChallenge: the program that follows people through such sequences, and the score of its result.
//!
//! The sequences stay in target/tmp/mot: `deploy/mot/check.sh target/tmp/mot` has py-motmetrics judge the same.

#[path = "../../examples/mot.rs"]
#[expect(dead_code, reason = "the test is the program's main function")]
mod mot;

use super::{POOR, Score, Seen, render, street};
use std::fs;
use std::path::{Path, PathBuf};

const FRAMES_PER_SECOND: u32 = 10;

/// Left, top, width and height.
fn place([left, top, right, bottom]: [f32; 4]) -> String {
    format!("{left:.2},{top:.2},{:.2},{:.2}", right - left, bottom - top)
}

/// Writes a sequence as the benchmark has it, without pictures.
fn write(scene: &[Seen], name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("mot")
        .join(name);
    let (mut truth, mut detections) = (String::new(), String::new());
    for (number, seen) in (1..).zip(scene) {
        for (person, xyxy) in &seen.truth {
            // What counts, the class, how visible.
            truth += &format!("{number},{},{},1,1,1\n", person + 1, place(*xyxy));
        }
        for found in &seen.detections {
            detections += &format!(
                "{number},-1,{},{:.4},-1,-1,-1\n",
                place(found.xyxy),
                found.score
            );
        }
    }
    let length = scene.len();
    let info = format!(
        "[Sequence]\nname={name}\nimDir=img1\nframeRate={FRAMES_PER_SECOND}\nseqLength={length}\nimWidth=640\nimHeight=480\nimExt=.jpg\n"
    );
    for (path, text) in [
        ("seqinfo.ini", info),
        ("gt/gt.txt", truth),
        ("det/det.txt", detections),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, text).expect("written");
    }
    folder
}

/// The tracks of every frame of a result.
fn tracks(result: &Path, frames: usize) -> Vec<Vec<(u64, [f32; 4])>> {
    let mut tracks = vec![Vec::new(); frames];
    for line in fs::read_to_string(result).expect("readable").lines() {
        let numbers: Vec<f32> = line
            .split(',')
            .map(|n| n.parse().expect("a number"))
            .collect();
        let [frame, id, left, top, width, height, score, -1.0, -1.0, -1.0] = numbers[..] else {
            panic!("{line}");
        };
        assert_eq!(score, 1.0, "{line}");
        tracks[frame as usize - 1].push((id as u64, [left, top, left + width, top + height]));
    }
    tracks
}

#[test]
fn a_rendered_sequence_of_the_benchmark_is_followed_and_scored() {
    let mut switches = 0;
    for seed in 1..=3 {
        let scene = render(&street(), 30.0, FRAMES_PER_SECOND, POOR, seed);
        let folder = write(&scene, &format!("STREET-{seed:02}"));
        let result = folder.join("result.txt");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        mot::run(&[&text(&folder), &text(&result), "--detections"]).expect("a result");
        let mut score = Score::default();
        for (seen, tracks) in scene.iter().zip(tracks(&result, scene.len())) {
            score.add(&seen.truth, &tracks);
        }
        println!("seed {seed}: MOTA {:.3}, {score:?}", score.mota());
        assert!(score.mota() > 0.86, "seed {seed}: {score:?}");
        switches += score.switches;
    }
    // docs/configuration.md has both.
    assert!(switches <= 4, "{switches} switches");
}

#[test]
fn a_sequence_that_is_not_one_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    let run = |arguments: &[&str]| format!("{:#}", mot::run(arguments).expect_err("no sequence"));
    assert!(run(&[path]).contains("expected SEQUENCE RESULT"));
    assert!(run(&[path, "result", "--detections"]).contains("det.txt"));
    fs::create_dir(folder.path().join("det")).expect("created");
    fs::write(folder.path().join("det/det.txt"), "1,-1,0,0,10,20\n").expect("written");
    let said = run(&[path, "result", "--detections"]);
    assert!(
        said.contains("det.txt:1: expected at least 7 numbers"),
        "{said}"
    );
}
