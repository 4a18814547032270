//! Progress of one look, on standard error: a bar at a terminal, elsewhere a line a minute.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where no terminal is, what takes less time than this says nothing.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// A bar of `length` steps of `what`.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let terminal = ProgressDrawTarget::stderr();
    let (target, template) = if terminal.is_hidden() {
        let lines = Box::new(Lines::new(io::stderr(), LINE_EVERY));
        (ProgressDrawTarget::term_like_with_hz(lines, 1), LINE)
    } else {
        (terminal, BAR)
    };
    drawn(length, what, target, template)
}

fn drawn(
    length: u64,
    what: &'static str,
    target: ProgressDrawTarget,
    template: &str,
) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(what)
}

const BAR: &str = "{prefix:>14} [{bar:30}] {pos}/{len} {elapsed} ({eta} left) {msg}";
const LINE: &str = "{prefix}: {pos} of {len}, {elapsed} ({eta} left) {msg}";

/// Writes what is drawn as lines, one in a while.
#[derive(Debug)]
struct Lines<W> {
    every: Duration,
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    output: W,
    next: Instant,
}

impl<W: Write> Lines<W> {
    fn new(output: W, every: Duration) -> Self {
        let next = Instant::now() + every;
        Self {
            every,
            state: Mutex::new(State { output, next }),
        }
    }
}

impl<W: Debug + Send + Write> TermLike for Lines<W> {
    /// Longer than any line.
    fn width(&self) -> u16 {
        200
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let text = text.trim();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if text.is_empty() || now < state.next {
            return Ok(());
        }
        state.next = now + self.every;
        writeln!(state.output, "{text}")
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    // There is no cursor.

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Debug, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        /// What a bar of three steps writes of all of them.
        fn of_a_bar(every: Duration) -> String {
            let output = Self::default();
            let lines = Lines::new(output.clone(), every);
            let target = ProgressDrawTarget::term_like(Box::new(lines));
            let bar = drawn(3, "float", target, LINE);
            for _ in 0..3 {
                bar.inc(1);
                bar.set_message("loss 0.500");
                bar.tick();
            }
            bar.finish();
            let written = output.0.lock().unwrap();
            String::from_utf8(written.clone()).unwrap()
        }
    }

    #[test]
    fn without_a_terminal_progress_is_told_in_plain_lines() {
        let written = Shared::of_a_bar(Duration::ZERO);
        assert!(!written.contains(['\r', '\u{1b}']), "{written:?}");
        let told = written.lines().filter(|line| line.starts_with("float: "));
        assert_eq!(told.count(), written.lines().count(), "{written:?}");
        assert!(written.contains("float: 1 of 3, 0s ("), "{written:?}");
        let last = written.lines().last().unwrap();
        assert!(last.starts_with("float: 3 of 3, 0s ("), "{written:?}");
        assert!(last.ends_with(" left) loss 0.500"), "{written:?}");
    }

    #[test]
    fn what_is_done_soon_is_not_told() {
        assert_eq!(Shared::of_a_bar(LINE_EVERY), "");
    }
}
