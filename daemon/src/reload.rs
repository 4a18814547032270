//! Settings that are changed while the daemon runs: zones, lines, thresholds and the schedule, on SIGHUP.
//!
//! Whoever reads the configuration prepares everything aside; the inference thread exchanges it between two frames. Tracks
//! go on. Everything else is read at the start only, and is told of if it has changed.

use crate::config::Config;
use crate::pipeline::Places;
use crate::pipeline::mail::{Mail, Settings};

/// Hands over what is different in `next` and can be changed, notes it down in `running`, and gives the sections that
/// differ otherwise. The schedule is noted down only: the caller hands it over.
pub fn apply(running: &mut Config, next: Config, mail: &Mail) -> Vec<String> {
    let places_differ = running.zones != next.zones || running.lines != next.lines;
    mail.put(Settings {
        model: next.model.clone(),
        places: places_differ.then(|| Places::new(&next.zones, &next.lines)),
    });
    running.zones.clone_from(&next.zones);
    running.lines.clone_from(&next.lines);
    running.schedule.clone_from(&next.schedule);
    running.model.score_min = next.model.score_min;
    running.model.iou_max = next.model.iou_max;
    let before = running.lines();
    let section = |line: &String| line.split_once(':').map(|(name, _)| name.to_owned());
    let mut differing: Vec<String> = next
        .lines()
        .iter()
        .filter(|line| !before.contains(line))
        .filter_map(section)
        .collect();
    // No line shows a secret.
    let secrets = [
        (
            "camera.rtsp",
            &running.camera.rtsp.url,
            &next.camera.rtsp.url,
        ),
        ("mqtt", &running.mqtt.password, &next.mqtt.password),
    ];
    for (name, before, now) in secrets {
        if before.expose() != now.expose() && !differing.iter().any(|known| known == name) {
            differing.push(name.into());
        }
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str) -> Config {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ternwatch.toml");
        std::fs::write(&path, file).expect("written");
        Config::load(Some(&path), []).expect("valid")
    }

    const YARD: &str =
        "[[zones]]\nname = \"yard\"\npoints = [[0.1, 0.5], [0.6, 0.5], [0.6, 1.0]]\n";

    #[test]
    fn zones_and_thresholds_are_handed_over_and_the_rest_is_named() {
        let mail = Mail::default();
        let mut running = config("");
        let spans = "[schedule]\nspans = [\"22:00-06:00\"]\n";
        let next = format!("[model]\nscore_min = 0.7\n[mqtt]\nhost = \"other.lan\"\n{spans}{YARD}");
        assert_eq!(apply(&mut running, config(&next), &mail), ["mqtt"]);
        assert_eq!(running.schedule.spans, ["22:00-06:00"]);
        let settings = mail.take().expect("settings");
        assert_eq!(settings.model.score_min, 0.7);
        assert!(settings.places.is_some());
        assert!(mail.take().is_none(), "once only");
    }

    #[test]
    fn zones_that_stay_are_left_alone() {
        let mail = Mail::default();
        let mut running = config(YARD);
        let next = format!("[model]\niou_max = 0.3\n{YARD}");
        assert!(apply(&mut running, config(&next), &mail).is_empty());
        assert!(mail.take().expect("settings").places.is_none());
    }

    #[test]
    fn zones_that_nobody_took_yet_are_not_lost() {
        let mail = Mail::default();
        let mut running = config("");
        apply(&mut running, config(YARD), &mail);
        let next = format!("[model]\nscore_min = 0.7\n{YARD}");
        apply(&mut running, config(&next), &mail);
        assert!(mail.take().expect("settings").places.is_some());
    }

    #[test]
    fn secrets_that_differ_are_named_though_no_line_shows_them() {
        let with = |url: &str, password: &str| {
            let file = format!(
                "[camera.rtsp]\nurl = \"{url}\"\n[mqtt]\nusername = \"pi\"\npassword = \"{password}\"\n"
            );
            config(&file)
        };
        let mail = Mail::default();
        let mut running = with("rtsp://one", "one");
        let next = with("rtsp://two", "one");
        assert_eq!(apply(&mut running, next, &mail), ["camera.rtsp"]);
        let next = with("rtsp://one", "two");
        assert_eq!(apply(&mut running, next, &mail), ["mqtt"]);
    }
}
