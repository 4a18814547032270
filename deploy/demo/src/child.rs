//! A child process that does not outlive the demonstration.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A running program; dropped, it is killed.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    /// Starts a program.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| {
            format!(
                "{name} does not start ({})",
                command.get_program().display()
            )
        })?;
        Ok(Self { name, child })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot ask for the state of {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for that, at most until the time is over.
    pub(crate) fn stop(mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id is positive")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot end {}", self.name))?;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} has not ended {within:?} after SIGTERM", self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_heeds_sigterm_is_stopped_at_once() {
        let running =
            Running::start("sleep", Command::new("sleep").arg("60")).expect("sleep starts");
        let started = Instant::now();
        let status = running
            .stop(Duration::from_secs(5))
            .expect("sleep heeds SIGTERM");
        assert!(!status.success());
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Running::start("the daemon", &mut Command::new("/nonexistent/ternwatchd"))
            .err()
            .expect("missing");
        assert!(format!("{error:#}").contains("/nonexistent/ternwatchd"));
    }
}
