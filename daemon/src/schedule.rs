//! When frames are examined: spans of the week, by the clock on the wall.
//!
//! Takes texts like `mon-fri 22:00-06:00`, and says of a time of the week whether it lies in one of them. A span that goes over
//! midnight belongs to the day on which it begins. What the clock on the wall shows decides: on the day on which an hour is left out, a
//! span within that hour is; on the day on which one comes twice, so does a span within it. Pure, but for [`now`].

use crate::clock;
use crate::config::{Invalid, in_range};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Spans of a schedule.
const SPANS_MAX: usize = 32;
/// Characters of a span.
const SPAN_BYTES_MAX: usize = 64;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MINUTES_OF_A_DAY: u16 = 24 * 60;

/// The `[schedule]` section.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `mon-fri 22:00-06:00`; none: always.
    pub spans: Vec<String>,
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        in_range("schedule.spans", self.spans.len(), 0..=SPANS_MAX)?;
        Schedule::new(self).map(drop)
    }
}

/// Spans of the week.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(Vec<Span>);

/// Beginning on each of these days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// From Monday on.
    days: [bool; 7],
    /// Minutes of the day, below 1440.
    from: u16,
    /// Minutes of the day, at most 1440; not after `from`: of the next one.
    to: u16,
}

/// A time of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeekTime {
    /// From Monday on, 0 to 6.
    pub day: usize,
    /// Minutes of the day, below 1440.
    pub minute: u16,
}

impl Schedule {
    /// Of settings, which may be wrong: then the span is named.
    pub fn new(config: &Config) -> Result<Self, Invalid> {
        let spans = config.spans.iter().enumerate();
        let spans = spans.map(|(index, text)| {
            parse(text).map_err(|reason| Invalid::new(format!("schedule.spans[{index}]"), reason))
        });
        spans.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none: then it is always time.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is time.
    pub fn has(&self, time: WeekTime) -> bool {
        self.is_empty() || self.0.iter().any(|span| span.has(time))
    }
}

impl Span {
    fn has(&self, WeekTime { day, minute }: WeekTime) -> bool {
        let yesterday = (day + 6) % 7;
        if self.from < self.to {
            self.days[day] && (self.from..self.to).contains(&minute)
        } else {
            (self.days[day] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
        }
    }
}

/// Reads `mon-fri,sun 22:00-06:00`, or `22:00-06:00` for every day.
fn parse(text: &str) -> Result<Span, String> {
    if text.len() > SPAN_BYTES_MAX {
        return Err(format!("is longer than {SPAN_BYTES_MAX} bytes"));
    }
    let mut words = text.split_ascii_whitespace();
    let (days, times) = match (words.next(), words.next(), words.next()) {
        (Some(times), None, None) => ([true; 7], times),
        (Some(days), Some(times), None) => (parse_days(days)?, times),
        _ => return Err(format!("\"{text}\" is not like \"mon-fri 22:00-06:00\"")),
    };
    let (from, to) = times
        .split_once('-')
        .ok_or_else(|| format!("\"{times}\" is not like \"22:00-06:00\""))?;
    let (from, to) = (parse_time(from)?, parse_time(to)?);
    if from == MINUTES_OF_A_DAY {
        return Err("a span does not begin at 24:00, but at 00:00 of the next day".into());
    }
    if from == to {
        return Err("has no length; a whole day is 00:00-24:00".into());
    }
    Ok(Span { days, from, to })
}

/// Reads `mon-fri,sun`; a range may go over the end of the week.
fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let known = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        known.ok_or_else(|| format!("\"{name}\" is none of {}", DAYS.join(", ")))
    };
    let mut days = [false; 7];
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7 + 1;
        for number in first..first + count {
            days[number % 7] = true;
        }
    }
    Ok(days)
}

/// Reads `06:30` as minutes, up to `24:00`.
fn parse_time(text: &str) -> Result<u16, String> {
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let parsed = text.split_once(':').and_then(|(hours, minutes)| {
        let is_good = is_number(hours) && is_number(minutes);
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (is_good && minutes < 60).then_some(hours * 60 + minutes)
    });
    parsed
        .filter(|minutes| *minutes <= MINUTES_OF_A_DAY)
        .ok_or_else(|| format!("\"{text}\" is no time from 00:00 to 24:00"))
}

/// What the clock on the wall shows now, in the system's time zone; `None` if it was never set.
pub fn now() -> Option<WeekTime> {
    if !clock::is_set() {
        return None;
    }
    let seconds = i64::try_from(clock::seconds()).ok()?;
    // A board without time zones shows UTC.
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    week_time(seconds, &zone)
}

/// What the clock on the wall shows so many seconds after 1970 began in UTC.
fn week_time(seconds: i64, zone: &TimeZone) -> Option<WeekTime> {
    let moment = Timestamp::from_second(seconds).ok()?;
    let shown: DateTime = zone.to_datetime(moment);
    Some(WeekTime {
        day: usize::try_from(shown.weekday().to_monday_zero_offset()).ok()?,
        minute: u16::try_from(i32::from(shown.hour()) * 60 + i32::from(shown.minute())).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTES_OF_A_WEEK: usize = 7 * 24 * 60;

    fn schedule(spans: &[&str]) -> Result<Schedule, Invalid> {
        let spans = spans.iter().map(|span| (*span).into()).collect();
        let config = Config { spans };
        config.validate()?;
        Schedule::new(&config)
    }

    fn at(text: &str) -> WeekTime {
        let (day, time) = text.split_once(' ').expect("a day and a time");
        WeekTime {
            day: DAYS.iter().position(|known| *known == day).expect("a day"),
            minute: parse_time(time).expect("a time"),
        }
    }

    #[test]
    fn nights_belong_to_the_day_on_which_they_begin() {
        let schedule = schedule(&["mon-fri 22:00-06:00", "sat,sun 00:00-24:00"]).expect("valid");
        for on in [
            "mon 22:00",
            "mon 23:59",
            "tue 00:00",
            "tue 05:59",
            "fri 23:00",
            "sat 05:59",
            "sat 12:00",
            "sun 23:59",
        ] {
            assert!(schedule.has(at(on)), "{on}");
        }
        for off in [
            "mon 00:00",
            "mon 05:59",
            "mon 21:59",
            "tue 06:00",
            "fri 21:59",
        ] {
            assert!(!schedule.has(at(off)), "{off}");
        }
    }

    #[test]
    fn without_spans_it_is_always_time() {
        let always = schedule(&[]).expect("valid");
        assert!(always.is_empty() && always.has(at("sun 03:00")));
    }

    #[test]
    fn days_are_written_in_many_ways() {
        let days = |text: &str| {
            let span = parse(&format!("{text} 10:00-11:00")).expect(text);
            span.days.map(u8::from)
        };
        assert_eq!(days("mon"), [1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(days("fri-mon"), [1, 0, 0, 0, 1, 1, 1]);
        assert_eq!(days("Tue,thu-FRI"), [0, 1, 0, 1, 1, 0, 0]);
        assert_eq!(days("sun-sat"), [1; 7]);
        assert_eq!(parse("10:00-11:00").expect("every day").days, [true; 7]);
    }

    #[test]
    fn a_bad_span_is_named() {
        for (bad, says) in [
            ("", "is not like"),
            ("mon 10:00-11:00 extra", "is not like"),
            ("mon", "is not like"),
            ("noon 10:00-11:00", "\"noon\" is none of mon"),
            ("mon- 10:00-11:00", "\"\" is none of mon"),
            ("mon,,tue 10:00-11:00", "\"\" is none of mon"),
            ("10:00-25:00", "\"25:00\" is no time"),
            ("10:00-24:01", "\"24:01\" is no time"),
            ("10:60-11:00", "\"10:60\" is no time"),
            ("9:00-11:00", "\"9:00\" is no time"),
            ("+9:00-11:00", "\"+9:00\" is no time"),
            ("10.00-11.00", "\"10.00\" is no time"),
            ("24:00-06:00", "at 00:00 of the next day"),
            ("10:00-10:00", "a whole day is 00:00-24:00"),
            (&"x".repeat(65), "is longer than 64 bytes"),
        ] {
            let invalid = schedule(&["10:00-11:00", bad]).expect_err(bad);
            assert_eq!(invalid.key, "schedule.spans[1]");
            assert!(invalid.reason.contains(says), "{bad}: {}", invalid.reason);
        }
        let many = ["10:00-11:00"; SPANS_MAX + 1];
        assert_eq!(schedule(&many).expect_err("many").key, "schedule.spans");
    }

    /// Berlin, by its rules: no file is needed.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("rules")
    }

    fn seconds(local: &str) -> i64 {
        let local: DateTime = local.parse().expect("a date and a time");
        let moment = zone().to_timestamp(local).expect("within the years");
        moment.as_second()
    }

    /// Minutes of the schedule from one moment to another.
    fn minutes_on(schedule: &Schedule, from: &str, to: &str) -> usize {
        let moments = (seconds(from)..seconds(to)).step_by(60);
        let times = moments.map(|moment| week_time(moment, &zone()).expect("a time"));
        times.filter(|time| schedule.has(*time)).count()
    }

    #[test]
    fn nights_in_which_the_clock_is_changed_are_shorter_or_longer() {
        let night = schedule(&["22:00-06:00"]).expect("valid");
        let of = |from, to| minutes_on(&night, from, to) / 60;
        assert_eq!(of("2026-03-27T12:00", "2026-03-28T12:00"), 8);
        assert_eq!(of("2026-03-28T12:00", "2026-03-29T12:00"), 7);
        assert_eq!(of("2026-10-24T12:00", "2026-10-25T12:00"), 9);
        // Of the hour that is left out, and the one that comes twice.
        let hour = schedule(&["02:00-03:00"]).expect("valid");
        let of = |from, to| minutes_on(&hour, from, to);
        assert_eq!(of("2026-03-28T12:00", "2026-03-29T12:00"), 0);
        assert_eq!(of("2026-10-24T12:00", "2026-10-25T12:00"), 120);
        let across = schedule(&["01:30-02:30"]).expect("valid");
        let of = |from, to| minutes_on(&across, from, to);
        assert_eq!(of("2026-03-28T12:00", "2026-03-29T12:00"), 30);
        assert_eq!(of("2026-10-24T12:00", "2026-10-25T12:00"), 90);
    }

    #[test]
    fn clocks_of_any_time_are_read() {
        for seconds in [i64::MIN, -1, 0, 1_795_502_401, i64::MAX] {
            let time = week_time(seconds, &zone());
            assert!(time.is_none_or(|time| time.day < 7 && time.minute < MINUTES_OF_A_DAY));
        }
        let thursday = WeekTime { day: 3, minute: 60 };
        assert_eq!(week_time(0, &zone()), Some(thursday), "1970-01-01 01:00");
    }

    /// Whether it is so at each minute of the week, by painting the week span by span.
    fn painted(spans: &[([bool; 7], u16, u16)]) -> Vec<bool> {
        let mut week = vec![false; MINUTES_OF_A_WEEK];
        for &(days, from, length) in spans {
            for (day, _) in days.iter().enumerate().filter(|(_, is)| **is) {
                let start = day * 1440 + usize::from(from);
                for minute in start..start + usize::from(length) {
                    week[minute % MINUTES_OF_A_WEEK] = true;
                }
            }
        }
        week
    }

    fn written((days, from, length): &([bool; 7], u16, u16)) -> String {
        let named = DAYS.iter().zip(days).filter(|(_, is)| **is);
        let names: Vec<&str> = named.map(|(name, _)| *name).collect();
        // A span of more than the rest of the day ends on the next one.
        let to = from + length;
        let to = if to > 1440 { to - 1440 } else { to };
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        format!("{} {}-{}", names.join(","), time(*from), time(to))
    }

    proptest! {
        #[test]
        fn a_schedule_is_the_union_of_its_spans_on_the_week(
            spans in prop::collection::vec(
                (prop::array::uniform7(any::<bool>()), 0..1440u16, 1..1440u16)
                    .prop_filter("a day", |(days, _, _)| days.contains(&true)),
                1..4,
            )
        ) {
            let texts: Vec<String> = spans.iter().map(written).collect();
            let schedule = Schedule::new(&Config { spans: texts.clone() }).expect("valid");
            for (minute, is_on) in painted(&spans).into_iter().enumerate() {
                let time = WeekTime { day: minute / 1440, minute: (minute % 1440) as u16 };
                prop_assert_eq!(schedule.has(time), is_on, "{:?} of {:?}", time, texts);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn around_changes_of_the_clock_it_turns_only_at_its_times_or_with_the_clock(
            (from, length) in (0..1440u16, 1..1440u16),
            change in prop::sample::select(vec!["2026-03-29T03:00", "2026-10-25T03:00"]),
        ) {
            let span = ([true; 7], from, length);
            let schedule = Schedule::new(&Config { spans: vec![written(&span)] }).expect("valid");
            let turns = [from, (from + length) % 1440];
            let middle = seconds(change);
            let mut before: Option<WeekTime> = None;
            for moment in (middle - 86_400..middle + 86_400).step_by(60) {
                let time = week_time(moment, &zone()).expect("a time");
                if let Some(before) = before {
                    let has_turned = schedule.has(time) != schedule.has(before);
                    let has_jumped = (before.minute + 1) % 1440 != time.minute;
                    prop_assert!(!has_turned || has_jumped || turns.contains(&time.minute));
                }
                before = Some(time);
            }
        }
    }
}
