//! Memory, power supply, clock and memory card, as the kernel tells of them.

use super::{Finding, Level};
use crate::clock;
use crate::disk::{Disk, SystemDisk};
use crate::exit::Reason;
use rustix::fs::{Access, access};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// What the daemon and a second model on trial need, in KiB.
const MEMORY_KIB_MIN: u64 = 64 << 10;
/// Room for three models of the largest size and the record of them.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// The kernel's files are short.
const FILE_BYTES_MAX: u64 = 64 << 10;
const PAST: Duration = Duration::from_secs(clock::EARLIEST_S);

/// The files of a kernel.
pub(super) struct Board {
    root: PathBuf,
    /// Whether a program may be asked about this board.
    is_here: bool,
}

impl Board {
    /// The board that this runs on.
    pub(super) fn here() -> Self {
        Self {
            root: "/".into(),
            is_here: true,
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Option<String> {
        read(&self.path(path))
    }

    /// Memory that is free or can be freed.
    pub(super) fn memory(&self) -> Finding {
        const SUBJECT: &str = "memory";
        let available = self.read("/proc/meminfo").and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        let Some(kib) = available else {
            return Finding::new(
                Level::Doubtful,
                SUBJECT,
                "the kernel does not say how much is free",
                "run this outside of a sandbox",
            );
        };
        let text = format!("{} MiB are free", kib >> 10);
        if kib >= MEMORY_KIB_MIN {
            return Finding::good(SUBJECT, text);
        }
        let remedy = format!(
            "the daemon needs {} MiB: end other programs, or use the Lite system without a desktop",
            MEMORY_KIB_MIN >> 10
        );
        Finding::new(Level::Doubtful, SUBJECT, text, remedy)
    }

    /// Whether a Pi's supply holds its voltage. What was before is in the kernel's log.
    pub(super) fn power(&self) -> Finding {
        const SUBJECT: &str = "power";
        const REMEDY: &str = "use the power supply that is made for this board, and a short cable";
        match self.under_voltage_alarm().or_else(|| self.throttled()) {
            Some(true) => Finding::new(Level::Doubtful, SUBJECT, "under-voltage now", REMEDY),
            Some(false) => {
                let text = "no under-voltage now (`journalctl -k --grep=voltage` tells of earlier)";
                Finding::good(SUBJECT, text)
            }
            None => Finding::good(SUBJECT, "this board does not measure its voltage"),
        }
    }

    /// What a Pi's firmware says, where the kernel has no sensor for it; newer kernels complain about whoever reads this.
    fn throttled(&self) -> Option<bool> {
        let text = self.read("/sys/devices/platform/soc/soc:firmware/get_throttled")?;
        let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
        // Bit 0: under-voltage now (documentation of `vcgencmd get_throttled`).
        Some(bits & 1 != 0)
    }

    /// The alarm of the sensor that newer kernels have on a Pi.
    fn under_voltage_alarm(&self) -> Option<bool> {
        let sensors = fs::read_dir(self.path("/sys/class/hwmon")).ok()?;
        sensors.filter_map(Result::ok).find_map(|sensor| {
            let name = read(&sensor.path().join("name"))?;
            let alarm = || read(&sensor.path().join("in0_lcrit_alarm"));
            (name.trim() == "rpi_volt")
                .then(alarm)?
                .map(|text| text.trim() == "1")
        })
    }

    /// Whether the time of events will be right.
    pub(super) fn clock(&self, now: SystemTime) -> Finding {
        const SUBJECT: &str = "clock";
        const REMEDY: &str =
            "`timedatectl set-ntp true` sets it from the network; a Pi has no clock of its own";
        if now < SystemTime::UNIX_EPOCH + PAST {
            let text = "the clock was never set: the times of events are wrong";
            return Finding::new(Level::Doubtful, SUBJECT, text, REMEDY);
        }
        if self.path("/run/systemd/timesync/synchronized").exists() || self.is_synchronised() {
            return Finding::good(SUBJECT, "set from the network");
        }
        let text = "nobody says that the clock was set from the network";
        Finding::new(Level::Doubtful, SUBJECT, text, REMEDY)
    }

    /// What systemd knows of the other programs that set clocks.
    fn is_synchronised(&self) -> bool {
        let mut command = Command::new("timedatectl");
        command
            .args(["show", "--property=NTPSynchronized", "--value"])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        self.is_here
            && command
                .output()
                .is_ok_and(|output| output.stdout.starts_with(b"yes"))
    }
}

/// Whether models can be stored.
pub(super) fn state(folder: &Path) -> Finding {
    const SUBJECT: &str = "state";
    let name = folder.display();
    if !folder.is_dir() {
        return Finding::new(
            Level::Doubtful,
            SUBJECT,
            format!("{name} (update.state_dir) is no folder: models cannot be replaced"),
            "the service makes it when it is started: `systemctl start ternwatch`",
        );
    }
    if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::new(
            Level::Doubtful,
            SUBJECT,
            format!("{name} is not writable for this user"),
            "run this as the service's user: `sudo -u ternwatch ternwatchd doctor`",
        );
    }
    let free = match SystemDisk.free_bytes(folder) {
        Ok(free) => free,
        Err(error) => {
            let text = format!("{name}: {error}");
            return Finding::new(
                Level::Bad(Reason::Io),
                SUBJECT,
                text,
                "check the memory card",
            );
        }
    };
    let text = format!("{name} is writable, {} MiB are free", free >> 20);
    if free < FREE_BYTES_MIN {
        let remedy = format!(
            "new models need up to {} MiB: make room",
            FREE_BYTES_MIN >> 20
        );
        return Finding::new(Level::Doubtful, SUBJECT, text, remedy);
    }
    Finding::good(SUBJECT, text)
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn board(files: &[(&str, &str)]) -> (TempDir, Board) {
        let folder = tempfile::tempdir().expect("a folder");
        let board = Board {
            root: folder.path().into(),
            is_here: false,
        };
        for (path, text) in files {
            let path = board.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, text).expect("written");
        }
        (folder, board)
    }

    #[test]
    fn little_memory_is_doubtful() {
        let level = |text: &str| board(&[("/proc/meminfo", text)]).1.memory();
        let rich = "MemTotal: 948304 kB\nMemAvailable:     702344 kB\n";
        let finding = board(&[("/proc/meminfo", rich)]);
        assert_eq!(
            finding.1.memory(),
            Finding::good("memory", "685 MiB are free")
        );
        for text in ["MemAvailable: 1000 kB\n", "MemAvailable: much\n", ""] {
            assert_eq!(level(text).level, Level::Doubtful, "{text}");
        }
    }

    #[test]
    fn under_voltage_is_told_of_by_either_kernel() {
        const FIRMWARE: &str = "/sys/devices/platform/soc/soc:firmware/get_throttled";
        let level = |files: &[(&str, &str)]| {
            let (_folder, board) = board(files);
            board.power()
        };
        assert_eq!(level(&[(FIRMWARE, "0\n")]).level, Level::Good);
        assert_eq!(level(&[(FIRMWARE, "50005\n")]).text, "under-voltage now");
        assert_eq!(level(&[(FIRMWARE, "50000\n")]).level, Level::Good);
        let sensor = |alarm| {
            level(&[
                ("/sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
                ("/sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
                ("/sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm),
            ])
        };
        assert_eq!(sensor("1\n").level, Level::Doubtful);
        assert_eq!(sensor("0\n").level, Level::Good);
        assert_eq!(level(&[]).level, Level::Good);
    }

    #[test]
    fn a_clock_that_nobody_set_is_doubtful() {
        let now = SystemTime::UNIX_EPOCH + PAST + Duration::from_secs(1);
        let (_folder, unset) = board(&[]);
        assert_eq!(unset.clock(now).level, Level::Doubtful);
        let (_folder, set) = board(&[("/run/systemd/timesync/synchronized", "")]);
        assert_eq!(set.clock(now).level, Level::Good);
        assert_eq!(set.clock(SystemTime::UNIX_EPOCH).level, Level::Doubtful);
    }

    #[test]
    fn a_state_folder_that_is_not_there_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(state(folder.path()).text.contains("is writable"));
        let finding = state(&folder.path().join("missing"));
        assert_eq!(finding.level, Level::Doubtful);
        assert!(finding.remedy.contains("systemctl start"));
    }
}
