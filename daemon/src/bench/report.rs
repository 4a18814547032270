//! What `ternwatchd bench` found, as a table for people and as JSON for programs.

use crate::model::ModelIdentity;
use crate::vitals::Vitals;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Version of the JSON document. Keys are added, never removed or given another meaning.
pub(super) const SCHEMA: u32 = 1;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of this document.
    pub schema: u32,
    /// Version of the daemon.
    pub daemon: &'static str,
    /// The model that ran.
    pub model: ModelIdentity,
    /// The instruction set level that it ran on.
    pub isa: String,
    /// The same, and why.
    pub isa_choice: String,
    /// On how many threads the layers ran.
    pub threads: usize,
    /// Width and height of the network's input, in pixels.
    pub input: [u32; 2],
    /// Million multiply-accumulates of one frame, zero weights included.
    pub mmac: f64,
    /// The frames.
    pub frame: FrameOf,
    /// How many of them.
    pub frames: usize,
    /// How many of the median a second has room for.
    pub frames_per_second: f64,
    /// In their order, then the whole, by the wall clock and by the processor's time.
    pub stages: Vec<StageTime>,
    /// The network's layers, in their order.
    pub layers: Vec<LayerTime>,
    /// What it takes.
    pub memory: Memory,
}

/// What the frames were like.
#[derive(Debug, Serialize)]
pub(super) struct FrameOf {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// As a camera names it.
    pub format: String,
}

/// The times of one stage, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StageTime {
    /// Which stage.
    pub stage: &'static str,
    /// Half of the frames were as fast or faster.
    pub p50_ms: f64,
    /// 95 of 100 were.
    pub p95_ms: f64,
    /// 99 of 100 were.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl StageTime {
    /// Percentiles by the nearest rank, of at least one time; sorts them.
    pub(super) fn of(stage: &'static str, times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times[rank - 1].as_secs_f64() * 1e3
        };
        Self {
            stage,
            p50_ms: rank(50),
            p95_ms: rank(95),
            p99_ms: rank(99),
            max_ms: rank(100),
        }
    }
}

/// One layer.
#[derive(Debug, Serialize)]
pub(super) struct LayerTime {
    /// Its name.
    pub name: String,
    /// What it does: `conv`, `depthwise`, `add`, `concat` or `pool`.
    pub op: &'static str,
    /// Side of the kernel of a convolution or pool; 0 for others.
    pub kernel: usize,
    /// Its stride.
    pub stride: usize,
    /// Channels, height and width of what it gives.
    pub output: [usize; 3],
    /// Million multiply-accumulates.
    pub mmac: f64,
    /// Median, in milliseconds.
    pub p50_ms: f64,
}

/// Memory, in KiB.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// Tensors and the kernels' working memory.
    pub arena_kib: usize,
    /// What the process has resident now.
    pub resident_kib: Option<u64>,
    /// The most that it had.
    pub resident_max_kib: Option<u64>,
}

impl Memory {
    /// Of this process.
    pub(super) fn of_this_process(arena_bytes: usize) -> Self {
        let vitals = Vitals::of_this_process();
        let kib = |bytes: u64| bytes / 1024;
        Self {
            arena_kib: arena_bytes.div_ceil(1024),
            resident_kib: vitals.memory_bytes().map(kib),
            resident_max_kib: vitals.memory_bytes_max().map(kib),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (model, frame, [width, height]) = (&self.model, &self.frame, self.input);
        writeln!(
            f,
            "{} version {}: input {width} x {height}, {:.1} MMAC, {} thread(s)",
            model.name, model.version, self.mmac, self.threads
        )?;
        writeln!(f, "instruction set {}", self.isa_choice)?;
        writeln!(
            f,
            "{} frames of {} x {}, {}\n",
            self.frames, frame.width, frame.height, frame.format
        )?;
        writeln!(
            f,
            "{:12} {:>9} {:>9} {:>9} {:>9}   milliseconds",
            "stage", "p50", "p95", "p99", "max"
        )?;
        for s in &self.stages {
            writeln!(
                f,
                "{:12} {:9.3} {:9.3} {:9.3} {:9.3}",
                s.stage, s.p50_ms, s.p95_ms, s.p99_ms, s.max_ms
            )?;
        }
        writeln!(f, "{:.1} frames a second\n", self.frames_per_second)?;
        self.layers(f)?;
        let mib =
            |kib: Option<u64>| kib.map_or("?".into(), |kib| format!("{:.1}", kib as f64 / 1024.0));
        writeln!(
            f,
            "\nmemory: arena {} KiB, resident {} MiB, at most {} MiB",
            self.memory.arena_kib,
            mib(self.memory.resident_kib),
            mib(self.memory.resident_max_kib)
        )
    }
}

impl Report {
    fn layers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:12} {:>9} {:>6} {:>6} {:>13} {:>8} {:>8} {:>7} {:>8}",
            "layer", "does", "kernel", "stride", "output", "MMAC", "p50 ms", "share", "GMAC/s"
        )?;
        let sum: f64 = self.layers.iter().map(|layer| layer.p50_ms).sum();
        for layer in &self.layers {
            let [channels, height, width] = layer.output;
            let kernel = match layer.kernel {
                0 => String::new(),
                side => format!("{side}x{side}"),
            };
            writeln!(
                f,
                "{:12} {:>9} {kernel:>6} {:>6} {:>13} {:8.2} {:8.3} {:6.1}% {:8.1}",
                layer.name,
                layer.op,
                layer.stride,
                format!("{channels}x{height}x{width}"),
                layer.mmac,
                layer.p50_ms,
                100.0 * layer.p50_ms / sum,
                layer.mmac / layer.p50_ms
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let stage = StageTime::of("infer", &mut times);
        let found = [stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms];
        assert_eq!(found, [100.0, 190.0, 198.0, 200.0]);
        let one = StageTime::of("infer", &mut [Duration::from_millis(7)]);
        assert_eq!((one.p50_ms, one.max_ms), (7.0, 7.0));
    }
}
