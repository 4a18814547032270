//! The parser of the decoder's output against good, damaged and hostile input.

use proptest::prelude::*;
use std::io::Cursor;
use ternwatch_daemon::camera::ffmpeg::y4m::{Header, LINE_BYTES_MAX, Y4mError, Y4mReader};

/// Reads everything; the number of frames, or the error that ended it.
fn read_all(bytes: &[u8]) -> Result<usize, Y4mError> {
    let mut reader = Y4mReader::new(Cursor::new(bytes));
    reader.read_header()?;
    // A hostile header could ask for 100 MB here; the daemon's buffer is bounded by the same limit on the sides.
    let mut planes = vec![0; reader.header().frame_len()];
    let mut frames = 0;
    while reader.read_frame(&mut planes)? {
        frames += 1;
    }
    Ok(frames)
}

fn stream(header: &str, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    for frame in frames {
        bytes.extend_from_slice(b"FRAME\n");
        bytes.extend_from_slice(frame);
    }
    bytes
}

#[test]
fn a_stream_as_ffmpeg_writes_it_is_read() {
    let header = "YUV4MPEG2 W4 H2 F25:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2\n";
    let bytes = stream(header, &[b"abcdefghijkl", b"ABCDEFGHIJKL"]);
    let mut reader = Y4mReader::new(Cursor::new(&bytes));
    reader.read_header().expect("a header");
    let Header {
        width,
        height,
        rate,
    } = reader.header();
    assert_eq!((width, height), (4, 2));
    assert_eq!(rate.expect("a rate").moment_ns(50), 2_000_000_000);
    let mut planes = [0; 12];
    assert!(reader.read_frame(&mut planes).expect("a frame"));
    assert_eq!(&planes, b"abcdefghijkl");
    assert!(reader.read_frame(&mut planes).expect("a frame"));
    assert_eq!(&planes, b"ABCDEFGHIJKL");
    assert!(!reader.read_frame(&mut planes).expect("the end"));
}

#[test]
fn a_rate_that_makes_no_sense_is_none() {
    for rate in ["F0:0", "F25:0", "F25", "Fx:1", "F-1:1", "F99999999999:1"] {
        let bytes = stream(&format!("YUV4MPEG2 W2 H2 {rate}\n"), &[]);
        let mut reader = Y4mReader::new(Cursor::new(&bytes));
        reader.read_header().expect("a header");
        assert_eq!(reader.header().rate, None, "{rate}");
    }
    let bytes = stream("YUV4MPEG2 W2 H2 F1:4294967295\n", &[]);
    let mut reader = Y4mReader::new(Cursor::new(&bytes));
    reader.read_header().expect("a header");
    let slow = reader.header().rate.expect("a rate");
    assert_eq!(slow.moment_ns(u64::MAX), u64::MAX, "no overflow");
}

#[test]
fn a_frame_line_may_have_parameters() {
    let mut bytes = b"YUV4MPEG2 W2 H2\nFRAME Ixyz\n".to_vec();
    bytes.extend_from_slice(&[0; 6]);
    assert_eq!(read_all(&bytes).expect("valid"), 1);
}

#[test]
fn bad_headers_are_errors() {
    type Check = fn(&Y4mError) -> bool;
    let cases: [(&str, Check); 12] = [
        ("", |e| matches!(e, Y4mError::Truncated)),
        ("YUV4MPEG2 W4 H2", |e| matches!(e, Y4mError::Truncated)),
        ("YUV4MPEG W4 H2\n", |e| {
            matches!(e, Y4mError::Mark("header"))
        }),
        ("\n", |e| matches!(e, Y4mError::Mark("header"))),
        ("YUV4MPEG2 H2\n", |e| matches!(e, Y4mError::Side("width"))),
        ("YUV4MPEG2 W4\n", |e| matches!(e, Y4mError::Side("height"))),
        ("YUV4MPEG2 W3 H2\n", |e| {
            matches!(e, Y4mError::Side("width"))
        }),
        ("YUV4MPEG2 W4 H0\n", |e| {
            matches!(e, Y4mError::Side("height"))
        }),
        ("YUV4MPEG2 W+4 H2\n", |e| {
            matches!(e, Y4mError::Side("width"))
        }),
        ("YUV4MPEG2 W8194 H2\n", |e| {
            matches!(e, Y4mError::Side("width"))
        }),
        ("YUV4MPEG2 W99999999999 H2\n", |e| {
            matches!(e, Y4mError::Side("width"))
        }),
        ("YUV4MPEG2 W4 H2 C444\n", |e| {
            matches!(e, Y4mError::Chroma(_))
        }),
    ];
    for (header, expected) in cases {
        let error = read_all(header.as_bytes()).expect_err(header);
        assert!(expected(&error), "{header:?} gave {error:?}");
    }
}

#[test]
fn ten_bit_video_is_refused_rather_than_misread() {
    let error = read_all(b"YUV4MPEG2 W4 H2 C420p10\n").expect_err("10 bits");
    assert!(matches!(error, Y4mError::Chroma(chroma) if chroma == "420p10"));
}

#[test]
fn frames_of_full_range_are_refused_rather_than_misread() {
    let error = read_all(b"YUV4MPEG2 W4 H2 C420jpeg XCOLORRANGE=FULL\n").expect_err("full");
    assert!(matches!(error, Y4mError::FullRange), "{error}");
    let frames = read_all(b"YUV4MPEG2 W4 H2 C420jpeg XCOLORRANGE=LIMITED\n");
    assert_eq!(frames.expect("limited"), 0);
}

#[test]
fn a_line_without_end_is_not_read_for_ever() {
    let endless = vec![b'W'; 1 << 20];
    assert!(matches!(
        read_all(&endless),
        Err(Y4mError::LongLine("header"))
    ));

    let mut longest = b"YUV4MPEG2 W2 H2 X".to_vec();
    longest.resize(LINE_BYTES_MAX, b'x');
    longest.push(b'\n');
    assert_eq!(read_all(&longest).expect("just short enough"), 0);
    longest.insert(20, b'x');
    assert!(matches!(
        read_all(&longest),
        Err(Y4mError::LongLine("header"))
    ));

    let mut bytes = stream("YUV4MPEG2 W2 H2\n", &[&[0; 6]]);
    bytes.extend_from_slice(&endless);
    assert!(matches!(read_all(&bytes), Err(Y4mError::LongLine("frame"))));
}

#[test]
fn truncated_and_misplaced_frames_are_errors() {
    let whole = stream("YUV4MPEG2 W2 H2\n", &[&[7; 6], &[9; 6]]);
    let first_frame_end = whole.len() - "FRAME\n".len() - 6;
    for len in first_frame_end + 1..whole.len() {
        assert!(
            matches!(read_all(&whole[..len]), Err(Y4mError::Truncated)),
            "cut at {len}"
        );
    }
    for line in ["frame\n", "FRAMES\n", "\n", "FRAM\n"] {
        let mut bytes = b"YUV4MPEG2 W2 H2\n".to_vec();
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&[0; 6]);
        assert!(
            matches!(read_all(&bytes), Err(Y4mError::Mark("frame"))),
            "{line:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn no_header_of_the_right_shape_makes_it_panic(
        parameters in "[WHCFIAX0-9 :p]{0,80}",
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = format!("YUV4MPEG2 {parameters}\nFRAME\n").into_bytes();
        bytes.extend_from_slice(&rest);
        let _ = read_all(&bytes);
    }

    #[test]
    fn every_valid_stream_is_read_back(
        width in 1u32..40,
        height in 1u32..40,
        frames in 0usize..4,
    ) {
        let len = (width * 2 * height * 2 * 3 / 2) as usize;
        let frame = vec![5; len];
        let header = format!("YUV4MPEG2 W{} H{} F10:1 Ip A1:1 C420jpeg\n", width * 2, height * 2);
        let bytes = stream(&header, &vec![frame.as_slice(); frames]);
        prop_assert_eq!(read_all(&bytes).expect("valid"), frames);
    }
}
