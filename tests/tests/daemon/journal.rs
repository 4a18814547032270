//! Where log lines go: to systemd's journal with their fields when it started the daemon, else to standard error.
//!
//! There may be a journal on this machine or none; strace answers in its place, and shows what is sent to it.

use crate::bench::Bench;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A line's fields by name.
type Fields = BTreeMap<String, String>;

/// A video that cannot be decoded, and where its log goes if that is the journal's.
fn bench() -> (Bench, String) {
    let mut bench = Bench::with_video(2, 1);
    bench.set("MQTT__ENABLED", "false");
    bench.set("STDOUT__ENABLED", "true");
    fs::write(bench.path("video.mp4"), "no video").expect("written");
    // The daemon's standard error; it keeps its number when it is opened for the daemon.
    fs::write(bench.path("log"), "").expect("written");
    let log = fs::metadata(bench.path("log")).expect("it is there");
    let stream = format!("{}:{}", log.dev(), log.ino());
    (bench, stream)
}

/// Runs it until it fails; what went to the journal's socket, and to standard error.
fn run(bench: &Bench, journal_stream: &str, answer: &str) -> (Vec<Fields>, String) {
    let options = [
        "-e".to_owned(),
        "trace=sendto".to_owned(),
        "-e".to_owned(),
        format!("inject=sendto:{answer}"),
        "-xx".to_owned(),
        "-s".to_owned(),
        "65536".to_owned(),
        "-E".to_owned(),
        format!("JOURNAL_STREAM={journal_stream}"),
    ];
    let (status, log) = bench.run_traced(&options).wait();
    assert_eq!(status.code(), Some(69), "{log}");
    let trace = fs::read_to_string(bench.path("trace")).expect("strace wrote it");
    let lines = trace.lines().filter(|line| line.contains("sendto("));
    let sent = lines.map(|line| {
        let texts: Vec<Vec<u8>> = line.split('"').skip(1).step_by(2).map(bytes).collect();
        let [payload, path] = &texts[..] else {
            panic!("{line}");
        };
        assert_eq!(String::from_utf8_lossy(path), SOCKET);
        fields(payload)
    });
    (sent.collect(), log)
}

/// Of `\x50\x52`.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(digits, 16).expect("two digits"))
        .collect()
}

/// The journal's native protocol: `NAME=value` lines, or a name, a length of eight bytes and so many bytes.
fn fields(mut payload: &[u8]) -> Fields {
    let mut fields = Fields::new();
    while let Some(end) = payload.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&payload[..end]).into_owned();
        payload = &payload[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.into(), value.into()),
            None => {
                let (len, rest) = payload.split_first_chunk().expect("a length");
                let len = usize::try_from(u64::from_le_bytes(*len)).expect("it is here");
                let value = String::from_utf8_lossy(&rest[..len]).into_owned();
                assert_eq!(rest[len], b'\n');
                payload = &rest[len + 1..];
                (line, value)
            }
        };
        fields.insert(name, value);
    }
    assert_eq!(payload, b"");
    fields
}

#[test]
fn under_systemd_lines_go_to_the_journal_with_their_fields() {
    let (bench, stream) = bench();
    let (sent, log) = run(&bench, &stream, "retval=0");
    assert_eq!(log, "");
    // The first datagram, an empty one, asks whether there is a journal.
    assert_eq!(sent[0], Fields::new());
    let failure = sent
        .iter()
        .find(|fields| fields.get("PRIORITY").is_some_and(|level| level == "3"))
        .unwrap_or_else(|| panic!("no error in {sent:?}"));
    assert!(
        failure["MESSAGE"].contains("could not decode"),
        "{failure:?}"
    );
    assert_eq!(failure["SYSLOG_IDENTIFIER"], "ternwatchd");
    assert!(!failure["VERSION"].is_empty());
    assert!(failure["TARGET"].starts_with("ternwatchd"), "{failure:?}");
}

#[test]
fn without_a_journal_lines_go_to_standard_error() {
    let (bench, stream) = bench();
    for (stream, answer, datagrams) in [
        // Nobody listens.
        (stream.as_str(), "error=ECONNREFUSED", 1),
        // Standard error leads to somewhere else than to the journal, which is there.
        ("1:1", "retval=0", 0),
        ("", "retval=0", 0),
    ] {
        let (sent, log) = run(&bench, stream, answer);
        assert_eq!(sent, vec![Fields::new(); datagrams], "{stream}");
        assert!(log.contains(" ERROR ternwatchd"), "{log}");
        assert!(log.contains("could not decode"), "{log}");
    }
}
