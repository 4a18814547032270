//! Annotated photographs: read, and drawn from.
pub mod augment;
pub mod coco;
pub mod labelled;
