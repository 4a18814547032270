//! What is trained, with what budget, and how it is told of.

use std::path::Path;

use ternwatch_bundle::manifest::Thresholds;

use super::methods::{self, Method};
use crate::network::Network;
use crate::train::check::check;
use crate::train::config::{Config, ConfigError, Float};

/// Fewer steps leave no budget.
const STEPS_MIN: u64 = 100;

/// A network, the float training that it gets, and the ways to make it ternary that are compared.
pub(super) struct Experiment {
    /// For files, and the word on the command line.
    pub(super) key: &'static str,
    /// Options of the command line beside those that all experiments have.
    pub(super) options: String,
    /// For people.
    pub(super) title: &'static str,
    /// What has to be said of the data.
    pub(super) data: String,
    /// The network.
    pub(super) network: Network,
    /// What has to be said of it.
    pub(super) architecture: String,
    /// The float training.
    pub(super) float: Float,
    /// Thresholds of the bundles.
    pub(super) thresholds: Thresholds,
    /// What is measured, as a part of 1.
    pub(super) measure: &'static str,
    /// Least measure wanted, over that of the float network.
    pub(super) difference_min: f64,
    /// How far behind the best one a way may be and still be on the chart.
    pub(super) shown: f64,
    /// Steps that every way to quantize may spend.
    pub(super) budget: u64,
    /// The ways that are compared.
    pub(super) methods: Vec<Method>,
}

/// What sets one classifier apart from the other.
struct Classifier {
    key: &'static str,
    title: &'static str,
    data: &'static str,
    /// Channels and stride of each 3x3 convolution.
    convs: &'static [(u32, u32)],
    steps: u64,
    difference_min: f64,
}

impl Experiment {
    /// Digits.
    pub(super) fn mnist(steps: Option<u64>) -> Self {
        Self::classifier(Classifier {
            key: "mnist",
            title: "MNIST",
            data: "MNIST (LeCun et al. 1998), 28 x 28 grey pictures in the middle of 32 x 32",
            convs: &[(16, 2), (32, 1), (64, 2), (64, 1)],
            steps: steps.unwrap_or(30_000),
            difference_min: 0.0,
        })
    }

    /// Ten classes of things.
    pub(super) fn cifar10(steps: Option<u64>) -> Self {
        Self::classifier(Classifier {
            key: "cifar10",
            title: "CIFAR-10 (JPEG)",
            data: "CIFAR-10 (Krizhevsky 2009), re-encoded as JPEG by its mirror: accuracies compare within this report and only \
                   roughly with published ones",
            convs: &[(32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)],
            steps: steps.unwrap_or(14_000),
            difference_min: -0.005,
        })
    }

    fn classifier(own: Classifier) -> Self {
        let size = (32, 32);
        let convs: Vec<String> = own.convs.iter().map(|(c, s)| format!("{c}/{s}")).collect();
        // The paper's overhead: 3 % of the float training.
        let budget = own.steps * 3 / 100;
        Self {
            key: own.key,
            options: String::new(),
            title: own.title,
            data: own.data.into(),
            network: Network::classifier(size, own.convs, 10),
            architecture: format!(
                "3x3 convolutions of channels/stride {}, batch normalization and ReLU after each, then one logit a class and cell, \
                 averaged",
                convs.join(", ")
            ),
            float: Float {
                steps: own.steps,
                batch: 64,
                sample: [32, 32],
                rate: 0.002,
                weight_decay: 0.0001,
                average_decay: 0.998,
            },
            thresholds: Thresholds {
                score: 0.5,
                iou: 0.5,
            },
            measure: "test accuracy",
            difference_min: own.difference_min,
            shown: 0.015,
            budget,
            methods: methods::all(budget),
        }
    }

    /// The detector of a configuration, `path` if it is not the one that ships. Its float training is compared, not its
    /// quantization.
    pub(super) fn pedestrian(
        config: &Config,
        path: Option<&Path>,
        steps: Option<u64>,
    ) -> Result<Self, ConfigError> {
        let network = config.network.as_ref().ok_or(ConfigError::Imported)?;
        let network = Network::new(network, config.classes.len() as u32);
        let float = Float {
            steps: steps.unwrap_or(config.float.steps),
            ..config.float.clone()
        };
        check(
            float.steps >= STEPS_MIN,
            "float.steps",
            &float.steps,
            "3 % of them are to be a few: at least 100",
        )?;
        let budget = float.steps * 3 / 100;
        let data = config.card.get("data").cloned();
        Ok(Self {
            key: "pedestrian",
            options: path.map_or_else(String::new, |path| format!(" --config {}", path.display())),
            title: "street pictures",
            data: data.unwrap_or_else(|| "the folder given with --data".into()),
            architecture: format!(
                "the detector of the configuration `{}`, {} x {} pixels",
                config.name, network.input.width, network.input.height
            ),
            network,
            float,
            thresholds: config.thresholds(),
            measure: "AP50",
            difference_min: -0.01,
            shown: 0.15,
            budget,
            methods: methods::all(budget),
        })
    }

    /// The layer whose weights are drawn: the last one of the largest.
    pub(super) fn largest_layer(&self) -> Option<String> {
        let layer = self.network.convs().max_by_key(|c| c.weights_len())?;
        Some(layer.name.to_owned())
    }
}
