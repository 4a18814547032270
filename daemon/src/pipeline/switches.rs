//! What both threads of the frame path look at before each frame.

use std::sync::atomic::{AtomicBool, Ordering};

/// Wishes that are carried out when a thread comes by.
#[derive(Debug)]
pub struct Switches {
    is_detecting: AtomicBool,
    restart: AtomicBool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            is_detecting: AtomicBool::new(true),
            restart: AtomicBool::new(false),
        }
    }
}

impl Switches {
    /// Whether frames are examined.
    pub fn is_detecting(&self) -> bool {
        self.is_detecting.load(Ordering::Relaxed)
    }

    /// Has frames examined from now on, or not.
    pub fn set_detecting(&self, is_detecting: bool) {
        self.is_detecting.store(is_detecting, Ordering::Relaxed);
    }

    /// Wishes that the camera be opened again.
    pub fn ask_restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
    }

    /// Whether the camera is to be opened again; the wish is gone then.
    pub fn take_restart(&self) -> bool {
        self.restart.swap(false, Ordering::Relaxed)
    }
}
