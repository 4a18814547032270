//! What is trained on which pictures, and with what budget.

use std::path::Path;

use anyhow::{Context, Result};

use super::methods::{self, Method};
use crate::cli::Experiments;
use crate::data::BadData;
use crate::data::labelled::{Labelled, Part};
use crate::network::Network;
use crate::train::config::Float;

/// One data set with the network that learns it.
pub(super) struct Experiment {
    /// For files.
    pub(super) key: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// What has to be said of the data.
    pub(super) data: &'static str,
    /// Width and height of the network's input.
    pub(super) size: (u32, u32),
    /// Channels and stride of each 3x3 convolution.
    pub(super) convs: &'static [(u32, u32)],
    /// Classes.
    pub(super) classes: u32,
    /// Largest shift of a training picture in pixels.
    pub(super) shift: usize,
    /// Whether training pictures are mirrored.
    pub(super) mirror: bool,
    /// The float training.
    pub(super) float: Float,
    /// Least accuracy wanted, over that of the float network.
    pub(super) difference_min: f64,
    /// Steps that every way to quantize may spend.
    pub(super) budget: u64,
    /// The ways that are compared.
    pub(super) methods: Vec<Method>,
    read: fn(&Path, Part) -> Result<Labelled>,
}

impl Experiment {
    /// The experiment of this name, with its own or another number of float steps.
    pub(super) fn of(what: Experiments, steps: Option<u64>) -> Self {
        let own = |all: u64| steps.unwrap_or(all);
        match what {
            Experiments::Mnist => Self::new(
                "mnist",
                "MNIST",
                "MNIST (LeCun et al. 1998), 28 x 28 grey pictures in the middle of 32 x 32",
                &[(16, 2), (32, 1), (64, 2), (64, 1)],
                (2, false),
                (own(9000), 64, 0.0),
                Labelled::mnist,
            ),
            Experiments::Cifar10 => Self::new(
                "cifar10",
                "CIFAR-10 (JPEG)",
                "CIFAR-10 (Krizhevsky 2009), re-encoded as JPEG by its mirror: accuracies compare within this report and only \
                 roughly with published ones",
                &[(32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)],
                (4, true),
                (own(14000), 64, -0.005),
                Labelled::cifar10,
            ),
        }
    }

    fn new(
        key: &'static str,
        title: &'static str,
        data: &'static str,
        convs: &'static [(u32, u32)],
        (shift, mirror): (usize, bool),
        (steps, batch, difference_min): (u64, usize, f64),
        read: fn(&Path, Part) -> Result<Labelled>,
    ) -> Self {
        let float = Float {
            steps,
            batch,
            sample: [32, 32],
            rate: 0.002,
            weight_decay: 0.0001,
            average_decay: 0.998,
        };
        // The paper's overhead: 3 % of the float training.
        let budget = steps * 3 / 100;
        Self {
            key,
            title,
            data,
            size: (32, 32),
            convs,
            classes: 10,
            shift,
            mirror,
            float,
            difference_min,
            budget,
            methods: methods::all(budget),
            read,
        }
    }

    /// The network.
    pub(super) fn network(&self) -> Network {
        Network::classifier(self.size, self.convs, self.classes)
    }

    /// Reads a part of the data.
    pub(super) fn load(&self, folder: &Path, part: Part) -> Result<Labelled> {
        (self.read)(folder, part).with_context(|| BadData(folder.into()))
    }
}
