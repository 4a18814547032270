//! Fuzz targets of Ternwatch.

pub mod targets;
