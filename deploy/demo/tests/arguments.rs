//! The program from the outside. That it is tested here also makes cargo build it for the system tests.

use std::process::Command;

#[test]
fn what_is_not_there_is_named_before_anything_starts() {
    let output = Command::new(env!("CARGO_BIN_EXE_ternwatch-demo"))
        .args(["--video", "no/such/street.avi", "--out", "no/such/folder"])
        .output()
        .expect("the demonstration starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no/such/street.avi is not there"), "{said}");
    assert!(output.stdout.is_empty());
}
