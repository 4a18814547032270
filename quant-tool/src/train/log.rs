//! What a run leaves for people to read: `log.csv` with losses, `layers.csv` with how near each layer is to its levels.

use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::stage::{Stage, State};
use super::task::Loss;
use crate::files;
use crate::quantize::LayerReport;

/// Steps between two lines of `log.csv`.
pub(super) const LOG_EVERY: u64 = 50;
/// Steps between two tables of `layers.csv`; the end of a stage has one, too.
pub(super) const LAYERS_EVERY: u64 = 500;

/// The table of losses, in a run's folder.
pub(crate) const LOSSES: &str = "log.csv";
/// The table of layers, beside it.
const LAYERS: &str = "layers.csv";

const LOSSES_HEAD: &str = "stage,step,seconds,rate,score_loss,box_loss,positives,near_levels,zeros";
const LAYERS_HEAD: &str = "stage,step,layer,near_levels,zeros";

/// The tables of a stage under way.
pub(super) struct Log {
    stage: Stage,
    losses: Table,
    layers: Table,
}

/// A table that grows.
struct Table {
    file: File,
    path: PathBuf,
}

impl Table {
    fn append(&mut self, line: Arguments<'_>) -> Result<()> {
        writeln!(self.file, "{line}").with_context(|| self.path.display().to_string())
    }
}

impl Log {
    /// Goes on with a run's tables. What a stopped call told of later steps than its last checkpoint has is dropped: these steps are
    /// done again.
    pub(super) fn open(run: &Path, stage: Stage, step: u64) -> Result<Self> {
        let table = |name: &str, head: &str| {
            let path = run.join(name);
            let place = || path.display().to_string();
            let before = match path.exists() {
                true => std::fs::read_to_string(&path).with_context(place)?,
                false => format!("{head}\n"),
            };
            let kept = before
                .lines()
                .filter(|line| !is_of_later(line, stage, step));
            let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
            files::write(&path, kept.as_bytes())?;
            let file = OpenOptions::new().append(true).open(&path);
            let file = file.with_context(place)?;
            Ok::<_, anyhow::Error>(Table { file, path })
        };
        Ok(Self {
            stage,
            losses: table(LOSSES, LOSSES_HEAD)?,
            layers: table(LAYERS, LAYERS_HEAD)?,
        })
    }

    /// Tells of a step.
    pub(super) fn line(&mut self, state: &State, rate: f32, loss: Loss) -> Result<()> {
        let report = state.quantizer.report(&state.parameters);
        let mean =
            |f: fn(&LayerReport) -> f32| report.iter().map(f).sum::<f32>() / report.len() as f32;
        let (near, zeros) = (mean(|r| r.near), mean(|r| r.zeros));
        self.losses.append(format_args!(
            "{},{},{:.0},{rate:.6},{:.4},{:.4},{},{near:.4},{zeros:.4}",
            self.stage.name(),
            state.step,
            state.seconds,
            loss.score,
            loss.bbox,
            loss.positives
        ))
    }

    /// Tells how near each layer is to its levels. Float networks have none yet.
    pub(super) fn layers(&mut self, state: &State) -> Result<()> {
        if self.stage == Stage::Float {
            return Ok(());
        }
        for layer in state.quantizer.report(&state.parameters) {
            self.layers.append(format_args!(
                "{},{},{},{:.4},{:.4}",
                self.stage.name(),
                state.step,
                layer.name,
                layer.near,
                layer.zeros
            ))?;
        }
        Ok(())
    }
}

/// Whether a line tells of the stage after a step.
fn is_of_later(line: &str, stage: Stage, step: u64) -> bool {
    let mut fields = line.split(',');
    let is_own = fields.next() == Some(stage.name());
    let of = fields.next().and_then(|field| field.parse::<u64>().ok());
    is_own && of.is_some_and(|of| of > step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_done_again_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOSSES);
        let before = format!("{LOSSES_HEAD}\nfloat,100,1\nsoft,50,1\nsoft,100,2\nsoft,150,3\n");
        std::fs::write(&path, before).unwrap();
        Log::open(folder.path(), Stage::Soft, 100).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            after,
            format!("{LOSSES_HEAD}\nfloat,100,1\nsoft,50,1\nsoft,100,2\n")
        );
        let layers = std::fs::read_to_string(folder.path().join(LAYERS)).unwrap();
        assert_eq!(layers, format!("{LAYERS_HEAD}\n"));
    }
}
