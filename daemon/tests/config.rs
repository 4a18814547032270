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
        ("[mqtt]\nca_file = \"/a.pem\"\n", "`mqtt.ca_file`"),
        ("[mqtt]\npassword = \"secret\"\n", "`mqtt.password`"),
        ("[mqtt]\nenabled = false\n", "nothing would be published"),
        ("[device]\nid = \"a/b\"\n", "`device.id`: has '/'"),
        ("[camera]\nname = \"\"\n", "`camera.name`: is empty"),
        (
            "[camera]\nsource = \"usb\"\n",
            "\"usb\" is none of \"v4l2\", \"video\", \"rtsp\", \"stills\"",
        ),
        ("[camera]\nsource = \"video\"\n", "`camera.video.path`"),
        (
            "[camera]\nsource = \"rtsp\"\n[camera.rtsp]\nurl = \"http://cam\"\n",
            "`camera.rtsp.url`",
        ),
        ("[camera]\nsource = \"stills\"\n", "`camera.stills.folder`"),
        ("[camera.v4l2]\nwidth = 0\n", "`camera.v4l2.width`"),
        ("[pipeline]\nwhen_busy = \"wait\"\n", "`pipeline.when_busy`"),
        ("[model]\nscore_min = 1.5\n", "`model.score_min`"),
        ("[model]\nisa = \"sse9\"\n", "`model.isa`"),
        ("[log]\nlevel = \"loud\"\n", "\"loud\" is none of"),
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
    for line in DEFAULTS.lines() {
        if let Some(heading) = line.strip_prefix('[') {
            section = heading.strip_suffix(']').expect(line);
        } else if !line.is_empty() && !line.starts_with('#') {
            actual.push(format!("{section}.{line}"));
        }
    }
    assert!(actual.len() > 20, "{actual:?}");
    assert_eq!(documented, actual);
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
