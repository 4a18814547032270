//! Why a model was not taken, or was taken back. The names are read by other programs: they are never renamed.

use crate::config::choice::{self, Choice};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Why a model is not (or no longer) in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The offer is not what the schema says.
    OfferInvalid,
    /// There is not enough room for it.
    NoSpace,
    /// What was received is not what was announced.
    HashMismatch,
    /// No trusted key signed it: damaged, forged, or of another owner.
    BadSignature,
    /// Signed, but not a model that this program runs.
    ModelInvalid,
    /// This processor does not compute the recorded answers.
    GoldenMismatch,
    /// An inference takes longer than the budget.
    TooSlow,
    /// Older than a model that was in use here: the threat is an old, weak model played back.
    VersionTooOld,
    /// It failed here before.
    Quarantined,
    /// The device could not store it.
    StoreFailed,
    /// Far more detections than with the model before.
    Flood,
    /// Far fewer detections than with the model before.
    Silence,
    /// The program ended too often while the model was on trial.
    AttemptsExceeded,
    /// Its file is gone or damaged.
    FileDamaged,
    /// Somebody asked for it.
    ByHand,
    /// The record of what is in use was damaged: back to the packaged model.
    StateDamaged,
    /// Another file of this name and version is known here: a version names one file.
    VersionReused,
    /// Its `not_after_s` is over.
    Expired,
    /// It asks for a newer daemon.
    DaemonTooOld,
    /// Downloads began so often of late that the memory card has to be spared.
    TooManyDownloads,
    /// Whoever offered it took it back.
    Cancelled,
    /// The settings do not name it.
    NameNotAccepted,
    /// One that a later daemon wrote down, before an older package took its place.
    Unknown,
}

impl Choice for Reason {
    const NAMED: &'static [(&'static str, Self)] = &[
        ("offer_invalid", Self::OfferInvalid),
        ("no_space", Self::NoSpace),
        ("hash_mismatch", Self::HashMismatch),
        ("bad_signature", Self::BadSignature),
        ("model_invalid", Self::ModelInvalid),
        ("golden_mismatch", Self::GoldenMismatch),
        ("too_slow", Self::TooSlow),
        ("version_too_old", Self::VersionTooOld),
        ("quarantined", Self::Quarantined),
        ("store_failed", Self::StoreFailed),
        ("flood", Self::Flood),
        ("silence", Self::Silence),
        ("attempts_exceeded", Self::AttemptsExceeded),
        ("file_damaged", Self::FileDamaged),
        ("by_hand", Self::ByHand),
        ("state_damaged", Self::StateDamaged),
        ("version_reused", Self::VersionReused),
        ("expired", Self::Expired),
        ("daemon_too_old", Self::DaemonTooOld),
        ("too_many_downloads", Self::TooManyDownloads),
        ("cancelled", Self::Cancelled),
        ("name_not_accepted", Self::NameNotAccepted),
        ("unknown", Self::Unknown),
    ];
}

impl Reason {
    /// Whether the same file would fail again: it is not tried a second time. Only what is found behind a good
    /// signature counts, so that strangers cannot fill the list.
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::ModelInvalid
                | Self::GoldenMismatch
                | Self::TooSlow
                | Self::Flood
                | Self::Silence
                | Self::AttemptsExceeded
                | Self::ByHand
        )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        choice::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The record must not be lost for a name: a file that failed is refused whatever the reason was.
        let name = String::deserialize(deserializer)?;
        let named = Self::NAMED.iter().find(|(known, _)| *known == name);
        Ok(named.map_or(Self::Unknown, |(_, reason)| *reason))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Reason::NAMED.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::NAMED.len());
        for (name, reason) in Reason::NAMED {
            assert_eq!(reason.name(), *name);
        }
        // The last variant: a new one behind it must be given a name too.
        assert_eq!(Reason::Unknown as usize + 1, Reason::NAMED.len());
    }
}
