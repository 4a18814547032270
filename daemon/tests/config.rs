//! Settings: where they come from, what is refused and how it is named.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use ternwatch_daemon::camera::SourceKind;
use ternwatch_daemon::config::{Config, DEFAULTS};

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ternwatch.toml");
    std::fs::write(&path, file).expect("written");
    let environment = environment
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(Some(&path), environment).map_err(|error| error.to_string())
}

/// The message must say all of this.
fn refused(file: &str, environment: &[(&str, &str)], says: &[&str]) {
    let message = load(file, environment).expect_err(file);
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn the_installed_file_is_the_defaults_and_valid() {
    let nothing = Config::load(None, []).expect("the defaults are valid");
    let installed = load(DEFAULTS, &[]).expect("the installed file is valid");
    assert_eq!(nothing.lines(), installed.lines());
    assert_eq!(nothing.camera.source, SourceKind::V4l2);
}

#[test]
fn a_camera_that_opens_slowly_or_is_closed_slowly_is_no_thread_that_hangs() {
    for (stall_s, seconds) in [("1", 30 + 12), ("10", 30 + 12), ("60", 60 + 12)] {
        for source in ["v4l2", "rpicam", "rtsp"] {
            let environment = [
                ("TERNWATCH_CAMERA__STALL_S", stall_s),
                ("TERNWATCH_CAMERA__SOURCE", source),
                ("TERNWATCH_CAMERA__RTSP__URL", "rtsp://cam/1"),
            ];
            let config = load("", &environment).expect("valid");
            assert_eq!(config.camera.patience().as_secs(), seconds, "{source}");
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    refused(
        "[mqtt]\nhots = \"broker\"\n",
        &[],
        &[
            "ternwatch.toml",
            "unknown key `mqtt.hots`",
            "did you mean `mqtt.host`?",
        ],
    );
    refused(
        "[camera.v4l2]\nresolution = \"640x480\"\n",
        &[],
        &["ternwatch.toml", "unknown key `camera.v4l2.resolution`"],
    );
    refused("colour = 1\n", &[], &["unknown key `colour`"]);
}

#[test]
fn an_unknown_variable_is_named() {
    refused(
        "",
        &[("TERNWATCH_MQTT__HOTS", "broker")],
        &["TERNWATCH_MQTT__HOTS", "unknown key `mqtt.hots`"],
    );
    // One underscore separates words, not levels.
    refused(
        "",
        &[("TERNWATCH_MQTT_HOST", "broker")],
        &["TERNWATCH_MQTT_HOST", "unknown key `mqtt_host`"],
    );
}

#[test]
fn a_wrong_type_is_named_with_its_file() {
    let cases = [
        (
            "[mqtt]\nport = \"1883\"\n",
            "`mqtt.port` is a string, expected an integer",
        ),
        (
            "[mqtt]\nport = true\n",
            "`mqtt.port` is true or false, expected an integer",
        ),
        (
            "[mqtt]\nhost = 5\n",
            "`mqtt.host` is an integer, expected a string",
        ),
        (
            "[mqtt]\ntls = \"yes\"\n",
            "`mqtt.tls` is a string, expected true or false",
        ),
        (
            "[mqtt]\nport = [1883]\n",
            "`mqtt.port` is a list, expected an integer",
        ),
        (
            "[model]\nscore_min = \"high\"\n",
            "`model.score_min` is a string, expected a number",
        ),
    ];
    for (file, says) in cases {
        refused(file, &[], &["ternwatch.toml", says]);
    }
    refused("mqtt = 5\n", &[], &["`mqtt`", "is a section"]);
    let whole = load("[model]\nscore_min = 1\n", &[]).expect("a whole number is a number");
    assert_eq!(whole.model.score_min, 1.0);
}

#[test]
fn a_bad_value_is_named_with_its_origin() {
    let cases = [
        ("[mqtt]\nport = 0\n", "`mqtt.port`"),
        ("[mqtt]\nport = 70000\n", "`mqtt.port`"),
        ("[mqtt]\nport = -1\n", "`mqtt.port`"),
        ("[mqtt]\nkeep_alive_s = 4\n", "4 is not within 5 to 3600"),
        ("[mqtt]\nprefix = \"a/+/b\"\n", "`mqtt.prefix`"),
        (
            "[mqtt]\nprotocol = \"3\"\n",
            "\"3\" is none of \"5\", \"3.1.1\"",
        ),
        (
            "[mqtt]\nqueue_documents_max = 0\n",
            "`mqtt.queue_documents_max`",
        ),
        ("[mqtt]\nqueue_events_max = 0\n", "`mqtt.queue_events_max`"),
        ("[mqtt]\noutbox_mib_max = 1\n", "`mqtt.outbox_mib_max`"),
        ("[mqtt]\noutbox_sync_s = -1.0\n", "`mqtt.outbox_sync_s`"),
        ("[track]\nscore_low = 0.0\n", "`track.score_low`"),
        ("[track]\nlost_s = 0.0\n", "`track.lost_s`"),
        (
            "[publish]\nstatistics_s = 86401\n",
            "`publish.statistics_s`",
        ),
        (
            "[publish]\nevent_expiry_s = -1\n",
            "`publish.event_expiry_s`",
        ),
        ("[mqtt]\nca_file = \"/a.pem\"\n", "`mqtt.ca_file`"),
        (
            "[mqtt]\nclient_key = \"/a.key\"\n",
            "`mqtt.client_key`: is set, but `mqtt.tls` is false",
        ),
        (
            "[mqtt]\ntls = true\nclient_certificate = \"/a.pem\"\n",
            "`mqtt.client_certificate`: is set, but `mqtt.client_key` is empty",
        ),
        (
            "[mqtt]\ntls = true\nclient_key = \"/a.key\"\n",
            "`mqtt.client_key`: is set, but `mqtt.client_certificate` is empty",
        ),
        ("[mqtt]\npassword = \"secret\"\n", "`mqtt.password`"),
        ("[mqtt]\nenabled = false\n", "nothing would be published"),
        ("[device]\nid = \"a/b\"\n", "`device.id`: has '/'"),
        ("[camera]\nname = \"\"\n", "`camera.name`: is empty"),
        (
            "[camera]\nsource = \"usb\"\n",
            "\"usb\" is none of \"v4l2\", \"rpicam\", \"video\", \"rtsp\", \"stills\"",
        ),
        ("[camera]\nsource = \"video\"\n", "`camera.video.path`"),
        (
            "[camera]\nsource = \"rtsp\"\n[camera.rtsp]\nurl = \"http://cam\"\n",
            "`camera.rtsp.url`",
        ),
        (
            "[camera]\nsource = \"rtsp\"\n[camera.rtsp]\nurl = \"rtsp://me:p/a#s@cam/1\"\n",
            "`camera.rtsp.url`: has a password with",
        ),
        ("[camera]\nsource = \"stills\"\n", "`camera.stills.folder`"),
        ("[camera.v4l2]\nwidth = 0\n", "`camera.v4l2.width`"),
        ("[pipeline]\nwhen_busy = \"wait\"\n", "`pipeline.when_busy`"),
        ("[model]\nscore_min = 1.5\n", "`model.score_min`"),
        ("[model]\nisa = \"sse9\"\n", "`model.isa`"),
        ("[log]\nlevel = \"loud\"\n", "\"loud\" is none of"),
        (
            "[update]\nnames = [\"person\", \"\"]\n",
            "`update.names`: has a name that is empty",
        ),
    ];
    for (file, says) in cases {
        refused(file, &[], &["ternwatch.toml", says]);
    }
    refused(
        "",
        &[("TERNWATCH_MQTT__PORT", "many")],
        &["environment variable TERNWATCH_MQTT__PORT", "`mqtt.port`"],
    );
}

const YARD: &str = "[[zones]]\nname = \"yard\"\npoints = [[0, 0], [1.0, 0.0], [0.5, 1]]\n";

#[test]
fn zones_and_lines_are_read_and_shown() {
    let gate = "[[lines]]\nname = \"gate\"\npoints = [[0.5, 0.9], [0.5, 0.4]]\n";
    let config = load(&format!("{YARD}loiter_s = 30\n{gate}"), &[]).expect("valid");
    assert_eq!(config.zones[0].name, "yard");
    assert_eq!(config.zones[0].points, [[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]]);
    assert_eq!(config.zones[0].loiter_s, 30.0);
    assert_eq!(config.zones[0].score_min, 0.0, "the documented default");
    assert_eq!(config.lines[0].points, [[0.5, 0.9], [0.5, 0.4]]);
    let shown = config.lines().join("\n");
    assert!(
        shown.contains("zones[0]: height_max=1.0 height_min=0.0 loiter_s=30.0"),
        "{shown}"
    );
    let line = "lines[0]: name=\"gate\" points=[[0.5,0.9],[0.5,0.4]]";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn mistakes_in_zones_and_lines_are_named_by_their_place() {
    let second = |rest: &str| format!("{YARD}[[zones]]\n{rest}");
    let cases = [
        (
            second("name = \"b\"\npoints = [[0, 0], [1, 1], [1, 0], [0, 1]]\n"),
            "`zones[1].points`: the border crosses or touches itself",
        ),
        (
            second("name = \"b\"\npoint = []\n"),
            "unknown key `zones[1].point`, did you mean `points`?",
        ),
        (
            second("name = 5\npoints = []\n"),
            "`zones[1].name` is an integer, expected a string",
        ),
        (second("name = \"b\"\n"), "`zones[1].points`: is missing"),
        (
            second("name = \"b\"\npoints = [[0, 0], [1, \"1\"], [1, 0]]\n"),
            "`zones[1].points[1][1]` is a string, expected a number",
        ),
        (
            second("name = \"b\"\npoints = [[0, 0], [1], [1, 0]]\n"),
            "`zones[1].points[1]`: has 1 numbers, expected 2",
        ),
        (
            "[[lines]]\nname = \"a\"\npoints = [[0, 0], [1, 1], [1, 0]]\n".into(),
            "`lines[0].points`: has 3 points, a line has 2",
        ),
        (
            "[[lines]]\nname = \"a\"\npoints = [[0, 0], [1, 1, 1]]\n".into(),
            "`lines[0].points[1]`: has 3 numbers, expected 2",
        ),
        (
            "zones = 5\n".into(),
            "`zones` is an integer, expected a list",
        ),
        (
            "zones = [5]\n".into(),
            "`zones[0]` is an integer, expected a section",
        ),
        ("[zones]\nname = \"a\"\n".into(), "`zones.name`"),
    ];
    for (file, says) in cases {
        refused(&file, &[], &["ternwatch.toml", says]);
    }
    refused("", &[("TERNWATCH_ZONES", "x")], &["TERNWATCH_ZONES"]);
}

/// The examples in the defaults file are settings that work, once their `#` is taken away.
#[test]
fn the_examples_of_the_installed_file_are_valid_and_optional_keys_are_at_their_defaults() {
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_string(),
        _ => line.to_string(),
    };
    let text: Vec<String> = DEFAULTS.lines().map(bare).collect();
    let config = load(&text.join("\n"), &[]).expect("valid");
    assert_eq!((config.zones.len(), config.lines.len()), (1, 1));
    let zone = &config.zones[0];
    let without = load(YARD, &[]).expect("valid");
    assert_eq!(zone.score_min, without.zones[0].score_min);
    assert_eq!(zone.height_min, without.zones[0].height_min);
    assert_eq!(zone.height_max, without.zones[0].height_max);
    assert_eq!(zone.loiter_s, without.zones[0].loiter_s);
}

#[test]
fn what_is_not_toml_is_refused_with_file_and_line() {
    refused("[mqtt\n", &[], &["ternwatch.toml", "line 1"]);
    let missing = Config::load(Some(Path::new("/nonexistent/ternwatch.toml")), []);
    let message = missing.expect_err("missing").to_string();
    assert!(message.contains("/nonexistent/ternwatch.toml"), "{message}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let config = load(
        "[mqtt]\nhost = \"from-file\"\nport = 1\n[camera]\nsource = \"video\"\n",
        &[
            ("TERNWATCH_MQTT__HOST", "from-environment"),
            ("TERNWATCH_CAMERA__VIDEO__PATH", "/tmp/street.avi"),
            ("TERNWATCH_MQTT__TLS", "true"),
            ("TERNWATCH_MODEL__SCORE_MIN", "0.25"),
            ("TERNWATCHER", "not ours"),
        ],
    )
    .expect("valid");
    assert_eq!(config.mqtt.host, "from-environment");
    assert_eq!(config.mqtt.port, 1);
    assert_eq!(config.mqtt.keep_alive_s, 30);
    assert_eq!(config.camera.video.path, PathBuf::from("/tmp/street.avi"));
    assert!(config.mqtt.tls);
    assert_eq!(config.model.score_min, 0.25);
}

#[test]
fn a_password_of_digits_stays_as_it_is() {
    let config = load(
        "",
        &[
            ("TERNWATCH_MQTT__USERNAME", "me"),
            ("TERNWATCH_MQTT__PASSWORD", "007"),
        ],
    )
    .expect("valid");
    assert_eq!(config.mqtt.password.expose(), "007");
}

#[test]
fn secrets_are_never_shown() {
    let config = load(
        "[mqtt]\nusername = \"me\"\npassword = \"hunter2\"\n\
         [camera]\nsource = \"rtsp\"\n[camera.rtsp]\nurl = \"rtsp://me:hunter2@cam/1\"\n",
        &[],
    )
    .expect("valid");
    let shown = format!("{}\n{config:?}", config.lines().join("\n"));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("password=\"[redacted]\""), "{shown}");
    assert!(shown.contains("username=\"me\""), "{shown}");
}

#[test]
fn a_slip_beside_a_secret_does_not_show_it() {
    for (file, says) in [
        (
            "[mqtt]\npassword = \"\"\npassword = \"hunter2\"\n",
            "line 3, column 1: duplicate key",
        ),
        ("[mqtt]\npassword = \"hunter2\\q\"\n", "line 2, column "),
        ("[mqtt]\npassword = \"hunter2\n", "line 2, column "),
        ("[mqtt]\npassword = hunter2\n", "line 2, column "),
        (
            "[camera.rtsp]\nurl = \"rtsp://me:hunter2@cam/1\n",
            "line 2, column ",
        ),
    ] {
        let error = load(file, &[]).expect_err(file).to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn addresses_of_network_cameras_may_have_ports_and_escaped_passwords() {
    for url in [
        "rtsp://cam",
        "rtsps://cam:8554/live?user=a@b",
        "rtsp://[fd00::1]/a@b",
        "rtsp://me:p%2Fa%23s@cam:554/1#x@y",
    ] {
        let file = format!("[camera]\nsource = \"rtsp\"\n[camera.rtsp]\nurl = \"{url}\"\n");
        load(&file, &[]).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

/// The tables of docs/configuration.md: `| key | default | ...` below a heading with the section's name.
#[test]
fn the_documented_defaults_are_the_defaults() {
    let document = include_str!("../../docs/configuration.md");
    let mut documented = Vec::new();
    let mut section = "";
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.strip_suffix("]`").expect(line);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", key, default, ..] = cells[..]
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            documented.push(format!("{section}.{key} = {}", default.trim_matches('`')));
        }
    }
    let mut actual = Vec::new();
    // Settings that are only mentioned have a `#` and no space before them.
    for line in DEFAULTS.lines() {
        let line = line
            .strip_prefix('#')
            .filter(|rest| !rest.starts_with(' '))
            .unwrap_or(line);
        if let Some(heading) = line.strip_prefix('[') {
            section = heading.strip_suffix(']').expect(line);
        } else if !line.is_empty() && !line.starts_with('#') {
            actual.push(format!("{section}.{line}"));
        }
    }
    assert!(actual.len() > 20, "{actual:?}");
    assert_eq!(documented, actual);
}

/// A range in a sentence: `1 to 600`.
fn range_of(text: &str) -> Option<(f64, f64)> {
    let number = |word: &&str| word.trim_matches([',', '.', ';', ':']).parse().ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(3)
        .filter(|window| window[1] == "to")
        .find_map(|window| Some((number(&window[0])?, number(&window[2])?)))
}

#[test]
fn the_documented_ranges_are_the_ranges() {
    let document = include_str!("../../docs/configuration.md");
    let mut section = "";
    let mut checked = 0;
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.strip_suffix("]`").expect(line);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", key, default, meaning, ""] = cells[..] else {
            continue;
        };
        let default = default.trim_matches('`');
        // Lists have tests of their own.
        if default.parse::<f64>().is_err() || section.starts_with('[') {
            continue;
        }
        let key = format!("{section}.{}", key.trim_matches('`'));
        let (least, most) = range_of(meaning).unwrap_or_else(|| panic!("{key} has no range"));
        let variable = format!("TERNWATCH_{}", key.replace('.', "__").to_uppercase());
        let try_value = |value: f64| {
            // Only the source that is used is checked.
            let source = section.strip_prefix("camera.").unwrap_or("v4l2");
            load(
                "",
                &[
                    ("TERNWATCH_CAMERA__SOURCE", source),
                    ("TERNWATCH_CAMERA__STILLS__FOLDER", "/srv"),
                    (&variable, &value.to_string()),
                ],
            )
        };
        let is_whole = !default.contains('.');
        for inside in [least, most] {
            try_value(inside).unwrap_or_else(|error| panic!("{key} = {inside}: {error}"));
        }
        try_value(most + 1.0).expect_err(&key);
        if least > 0.0 {
            let below = if is_whole { least - 1.0 } else { least / 2.0 };
            try_value(below).expect_err(&key);
        }
        checked += 1;
    }
    assert!(checked > 15, "only {checked} ranges were found");
}

fn ternwatchd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ternwatchd"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("ternwatchd runs")
}

#[test]
fn check_config_answers_with_its_exit_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ternwatch.toml");
    let path_text = path.to_str().expect("UTF-8");
    let check = |text: &str| {
        std::fs::write(&path, text).expect("written");
        ternwatchd(&["check-config", "--config", path_text])
    };

    let good = check("[device]\nid = \"pi\"\n");
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let shown = String::from_utf8_lossy(&good.stdout);
    assert!(shown.contains("device: id=\"pi\""), "{shown}");
    assert!(shown.contains(" host=\"localhost\""), "{shown}");

    let bad = check("[mqtt]\nhots = \"broker\"\n");
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(
        said.contains(path_text) && said.contains("mqtt.hots"),
        "{said}"
    );

    let bad = check("[schedule]\nspans = [\"mon 08:00-17:00\", \"tue 8-17\"]\n");
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(
        said.contains(path_text) && said.contains("`schedule.spans[1]`: \"8\" is no time"),
        "{said}"
    );

    std::fs::remove_file(&path).expect("removed");
    let missing = ternwatchd(&["check-config", "--config", path_text]);
    assert_eq!(missing.status.code(), Some(78), "{missing:?}");
}

#[test]
fn the_command_line_has_its_own_exit_codes() {
    assert_eq!(ternwatchd(&["--colour"]).status.code(), Some(64));
    assert_eq!(ternwatchd(&["paint"]).status.code(), Some(64));
    assert_eq!(ternwatchd(&["--help"]).status.code(), Some(0));
    let version = ternwatchd(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let text = String::from_utf8_lossy(&version.stdout);
    assert_eq!(
        text.trim(),
        format!("ternwatchd {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_doctor_names_what_is_missing_with_a_remedy_and_an_exit_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ternwatch.toml");
    let config = path.to_str().expect("UTF-8");
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");
    let file = format!(
        "[model]\nbundle = \"{models}/person.tern\"\nkey = \"{models}/default.pub\"\n\
         [camera]\nsource = \"stills\"\n[camera.stills]\nfolder = \"{models}\"\n\
         [update]\nstate_dir = \"{models}\"\n[mqtt]\nenabled = false\n[stdout]\nenabled = true\n"
    );
    std::fs::write(&path, &file).expect("written");
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let healthy = ternwatchd(&["--config", config, "doctor"]);
    let text = said(&healthy);
    assert_eq!(healthy.status.code(), Some(0), "{text}");
    for subject in [
        "settings",
        "model",
        "processor",
        "memory",
        "power",
        "clock",
        "state",
        "camera",
        "broker",
    ] {
        assert!(
            text.lines()
                .any(|line| line.split_whitespace().nth(1) == Some(subject)),
            "no {subject}: {text}"
        );
    }
    assert!(text.contains("computes the recorded answers"), "{text}");

    let unreachable = file.replace(
        "[mqtt]\nenabled = false",
        "[mqtt]\nhost = \"127.0.0.1\"\nport = 1",
    );
    std::fs::write(&path, unreachable).expect("written");
    let sick = ternwatchd(&["--config", config, "doctor"]);
    let text = said(&sick);
    assert_eq!(sick.status.code(), Some(69), "{text}");
    assert!(
        text.contains("fail  broker     127.0.0.1:1 does not answer"),
        "{text}"
    );
    assert!(
        text.contains("-> mqtt.host and mqtt.port name it"),
        "{text}"
    );

    std::fs::write(&path, "[mqtt]\nhots = 1\n").expect("written");
    let sick = ternwatchd(&["--config", config, "doctor"]);
    let text = said(&sick);
    assert_eq!(sick.status.code(), Some(78), "{text}");
    assert!(
        text.contains("fail  settings") && text.contains("mqtt.hots"),
        "{text}"
    );
}
