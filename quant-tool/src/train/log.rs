//! What a run leaves for people to read: `log.csv` with losses, `layers.csv` with how near each layer is to its levels.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::stage::{Stage, State};
use super::task::Loss;
use crate::files;
use crate::quantize::LayerReport;

/// Steps between two lines of `log.csv`.
pub(super) const LOG_EVERY: u64 = 50;
/// Steps between two tables of `layers.csv`; the end of a stage has one, too.
pub(super) const LAYERS_EVERY: u64 = 500;

const LOSSES: &str = "stage,step,seconds,rate,score_loss,box_loss,positives,near_levels,zeros";
const LAYERS: &str = "stage,step,layer,near_levels,zeros";

/// The tables of a stage under way.
pub(super) struct Log {
    stage: Stage,
    losses: File,
    layers: File,
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
            OpenOptions::new()
                .append(true)
                .open(&path)
                .with_context(place)
        };
        Ok(Self {
            stage,
            losses: table("log.csv", LOSSES)?,
            layers: table("layers.csv", LAYERS)?,
        })
    }

    /// Tells of a step.
    pub(super) fn line(&mut self, state: &State, rate: f32, loss: Loss) -> Result<()> {
        let report = state.quantizer.report(&state.parameters);
        let mean =
            |f: fn(&LayerReport) -> f32| report.iter().map(f).sum::<f32>() / report.len() as f32;
        let (near, zeros) = (mean(|r| r.near), mean(|r| r.zeros));
        writeln!(
            self.losses,
            "{},{},{:.0},{rate:.6},{:.4},{:.4},{},{near:.4},{zeros:.4}",
            self.stage.name(),
            state.step,
            state.seconds,
            loss.score,
            loss.bbox,
            loss.positives
        )?;
        Ok(())
    }

    /// Tells how near each layer is to its levels. Float networks have none yet.
    pub(super) fn layers(&mut self, state: &State) -> Result<()> {
        if self.stage == Stage::Float {
            return Ok(());
        }
        for layer in state.quantizer.report(&state.parameters) {
            writeln!(
                self.layers,
                "{},{},{},{:.4},{:.4}",
                self.stage.name(),
                state.step,
                layer.name,
                layer.near,
                layer.zeros
            )?;
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
        let path = folder.path().join("log.csv");
        let before = format!("{LOSSES}\nfloat,100,1\nsoft,50,1\nsoft,100,2\nsoft,150,3\n");
        std::fs::write(&path, before).unwrap();
        Log::open(folder.path(), Stage::Soft, 100).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            after,
            format!("{LOSSES}\nfloat,100,1\nsoft,50,1\nsoft,100,2\n")
        );
        let layers = std::fs::read_to_string(folder.path().join("layers.csv")).unwrap();
        assert_eq!(layers, format!("{LAYERS}\n"));
    }
}
