//! What a keyring changes.

use super::{Machine, NotNow, StoredKeyring};
use std::collections::BTreeMap;

/// What enough roots said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// What is kept of it.
    pub keyring: StoredKeyring,
    /// The latest time at which roots signed one that is or was in effect, in seconds since 1970.
    pub signed_at_s: u64,
    /// Whether a key that was trusted until now is not any more.
    pub is_revocation: bool,
    /// By name of a model: the least version that is taken from now on.
    pub resets: BTreeMap<String, u64>,
}

impl Machine {
    pub(super) fn trust(&mut self, trust: Trust) -> Result<(), NotNow> {
        if let Some(present) = &self.record.keyring
            && trust.keyring.version <= present.version
        {
            return Err(NotNow::OldKeyring(present.version));
        }
        let record = &mut self.record;
        record.keyring = Some(trust.keyring);
        record.time_floor_s = if trust.is_revocation {
            // The threat is a leaked key that signed a time far ahead, and every model with an end would be over for good.
            trust.signed_at_s
        } else {
            trust.signed_at_s.max(record.time_floor_s)
        };
        for (name, version) in trust.resets {
            // A name that was never accepted has no floor that could be in the way.
            if let Some(floor) = record.floors.get_mut(&name) {
                *floor = version;
            }
        }
        Ok(())
    }
}
