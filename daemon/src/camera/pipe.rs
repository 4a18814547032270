//! A pipe that can be waited for with an end: of patience, or of the program.

use crate::stop::Stop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often a waiting reader looks whether a stop was asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Reads from `pipe`; fails with `TimedOut` after `patience` without a byte, and with [`is_stop`] on a stop.
pub(super) struct PatientPipe<P> {
    pipe: P,
    patience: Duration,
    stop: Stop,
}

impl<P> PatientPipe<P> {
    pub(super) fn new(pipe: P, patience: Duration, stop: Stop) -> Self {
        Self {
            pipe,
            patience,
            stop,
        }
    }

    /// How long it waits for the next byte.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits so long from now on.
    pub(super) fn be_patient_for(&mut self, patience: Duration) {
        self.patience = patience;
    }
}

/// Whether a read ended because a stop was asked for.
pub(super) fn is_stop(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<StopRequested>())
}

#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct StopRequested;

impl<P: Read + AsFd> Read for PatientPipe<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.patience;
        loop {
            if self.stop.requested() {
                return Err(io::Error::other(StopRequested));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let wait = left.min(LOOK_INTERVAL);
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: wait.subsec_nanos().into(),
            };
            // A hang-up or an error makes the pipe ready too; the read then reports it.
            let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn bytes_arrive_and_the_end_is_an_end() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut pipe = PatientPipe::new(reader, Duration::from_secs(10), Stop::default());
        writer.write_all(b"abc").expect("room");
        let mut buffer = [0; 8];
        assert_eq!(pipe.read(&mut buffer).expect("ready"), 3);
        drop(writer);
        assert_eq!(pipe.read(&mut buffer).expect("ended"), 0);
    }

    #[test]
    fn patience_ends() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let mut pipe = PatientPipe::new(reader, Duration::from_millis(5), Stop::default());
        let error = pipe.read(&mut [0; 8]).expect_err("nothing to read");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!is_stop(&error));
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let stop = Stop::default();
        let mut pipe = PatientPipe::new(reader, Duration::from_secs(60), stop.clone());
        let waiting = std::thread::spawn(move || pipe.read(&mut [0; 8]));
        stop.request();
        let error = waiting.join().expect("no panic").expect_err("stopped");
        assert!(is_stop(&error));
    }
}
