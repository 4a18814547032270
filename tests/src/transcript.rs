//! What `mosquitto_sub` showed, as docs/transcript.txt has it whole and docs/mqtt.md shortened: commands behind `$ `, then what they printed.

use serde_json::Value;

/// Where the shortened transcript stands in docs/mqtt.md.
pub const BEGINNING: &str = "<!-- `make transcript` writes what follows. -->\n\n";
/// ... and what comes behind it.
pub const END: &str = "\n<!-- Until here. -->\n";
/// Characters of a line in docs/mqtt.md.
const LINE_CHARS_MAX: usize = 126;

/// What a line is about: its topic and, of an event, the type. Nothing of a line that is no message.
pub fn kind(line: &str) -> Option<(&str, String)> {
    let (topic, payload) = line.split_once(' ')?;
    if !topic.starts_with("ternwatch/") {
        return None;
    }
    let document: Value = serde_json::from_str(payload).unwrap_or_default();
    let kind = document["type"].as_str().unwrap_or_default();
    Some((topic, kind.into()))
}

/// The page with this transcript in its place, shortened; nothing if it has no place for one.
pub fn placed(page: &str, transcript: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGINNING)?;
    let (_, after) = rest.split_once(END)?;
    let lines: String = transcript.lines().map(shortened).collect();
    Some([before, BEGINNING, &lines, END, after].concat())
}

/// As code in Markdown.
fn shortened(line: &str) -> String {
    if line.is_empty() {
        return "\n".into();
    }
    if line.chars().count() <= LINE_CHARS_MAX {
        return format!("    {line}\n");
    }
    let begins: String = line.chars().take(LINE_CHARS_MAX - 4).collect();
    format!("    {begins} ...\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transcript_takes_the_place_of_the_one_before() {
        let page = format!("a\n{BEGINNING}    old\n{END}b\n");
        let long = format!("ternwatch/pi/state {}", "x".repeat(200));
        let placed = placed(&page, &format!("$ command\n{long}\n")).expect("it has a place");
        let lines: Vec<&str> = placed.lines().collect();
        assert_eq!(lines[3], "    $ command");
        assert_eq!(lines[4].len(), 4 + LINE_CHARS_MAX);
        assert!(lines[4].ends_with("xx ..."), "{placed}");
        assert!(placed.starts_with("a\n") && placed.ends_with("b\n") && !placed.contains("old"));
        assert_eq!(super::placed("nothing", ""), None);
    }

    #[test]
    fn messages_are_told_apart_by_topic_and_type() {
        let event = r#"ternwatch/pi/door/events {"schema":1,"type":"new"}"#;
        assert_eq!(
            kind(event),
            Some(("ternwatch/pi/door/events", "new".into()))
        );
        assert_eq!(
            kind("ternwatch/pi/state online"),
            Some(("ternwatch/pi/state", String::new()))
        );
        assert_eq!(kind("$ mosquitto_sub -v"), None);
        assert_eq!(kind(r#"{"schema":1,"ok":true}"#), None);
    }
}
