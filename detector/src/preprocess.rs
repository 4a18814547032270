//! Preprocess.
