//! What this process and its board use: memory, processor time, temperature.
//!
//! Reads `/proc` and `/sys`. What a system does not have is left out, and no reason to fail.

use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No file that is read here is longer.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Boards have a few thermal zones.
const THERMAL_ZONES_MAX: usize = 64;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Vitals {
    proc: PathBuf,
    /// The file with the processor's temperature.
    thermometer: Option<PathBuf>,
}

impl Vitals {
    /// Of this process on this board.
    pub fn of_this_process() -> Self {
        Self::below(Path::new("/proc/self"), Path::new("/sys/class/thermal"))
    }

    fn below(proc: &Path, thermal: &Path) -> Self {
        Self {
            proc: proc.into(),
            thermometer: thermometer(thermal),
        }
    }

    /// Resident memory in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that was resident, in bytes.
    pub fn memory_bytes_max(&self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    /// What stands in the line of this key (proc(5), `/proc/pid/status`).
    fn status_bytes(&self, key: &str) -> Option<u64> {
        let status = read(&self.proc.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// The processor's temperature in degrees Celsius.
    pub fn temperature_c(&self) -> Option<f64> {
        let text = read(self.thermometer.as_deref()?)?;
        let milli: i32 = text.trim().parse().ok()?;
        Some(f64::from(milli) / 1000.0)
    }

    /// Processor time that the threads of this process have used so far.
    pub fn processor_time() -> Duration {
        time_of(ClockId::ProcessCPUTime)
    }
}

fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The first thermal zone whose type names a processor.
fn thermometer(thermal: &Path) -> Option<PathBuf> {
    (0..THERMAL_ZONES_MAX)
        .map(|number| thermal.join(format!("thermal_zone{number}")))
        .find(|zone| {
            let kind = read(&zone.join("type")).unwrap_or_default();
            let kind = kind.to_ascii_lowercase();
            // cpu-thermal (Pi), cpu0-thermal, soc-thermal, x86_pkg_temp.
            ["cpu", "soc", "x86_pkg"]
                .iter()
                .any(|name| kind.contains(name))
        })
        .map(|zone| zone.join("temp"))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn this_process_has_memory_and_uses_the_processor() {
        let vitals = Vitals::of_this_process();
        let before = Vitals::processor_time();
        let memory = vec![1u8; 64 << 20];
        let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(sum, 64 << 20);
        let bytes = vitals.memory_bytes().expect("Linux");
        assert!(bytes > 64 << 20, "{bytes}");
        assert!(Vitals::processor_time() > before);
    }

    #[test]
    fn resident_memory_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let status = "Name:\tternwatchd\nVmHWM:\t    9216 kB\nVmRSS:\t    8192 kB\n";
        let vitals = Vitals::below(folder.path(), folder.path());
        fs::write(folder.path().join("status"), status).expect("written");
        assert_eq!(vitals.memory_bytes(), Some(8192 << 10));
        assert_eq!(vitals.memory_bytes_max(), Some(9216 << 10));
        fs::write(folder.path().join("status"), "").expect("written");
        assert_eq!(vitals.memory_bytes(), None);
    }

    #[test]
    fn the_processors_zone_is_found_among_others() {
        let folder = tempfile::tempdir().expect("a folder");
        for (number, kind, temp) in [(0, "acpitz", "16800"), (2, "cpu-thermal", "48312")] {
            let zone = folder.path().join(format!("thermal_zone{number}"));
            fs::create_dir(&zone).expect("created");
            fs::write(zone.join("type"), format!("{kind}\n")).expect("written");
            fs::write(zone.join("temp"), format!("{temp}\n")).expect("written");
        }
        let proc = Path::new("/proc/self");
        let vitals = Vitals::below(proc, folder.path());
        assert_eq!(vitals.temperature_c(), Some(48.312));
        fs::write(folder.path().join("thermal_zone2/temp"), "hot").expect("written");
        assert_eq!(vitals.temperature_c(), None);
    }

    #[test]
    fn a_board_without_a_thermometer_has_no_temperature() {
        let nowhere = Path::new("/nonexistent");
        let vitals = Vitals::below(nowhere, nowhere);
        assert_eq!(vitals.temperature_c(), None);
        assert_eq!(vitals.memory_bytes(), None);
    }
}
