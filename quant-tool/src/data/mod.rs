//! Annotated photographs: read, and drawn from.
pub mod augment;
mod coco;
pub mod dataset;
pub mod labelled;
mod voc;
mod yolo;
