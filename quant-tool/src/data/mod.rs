//! Annotated photographs: read, and drawn from.
pub mod augment;
mod canvas;
mod coco;
pub mod dataset;
pub mod labelled;
mod picture;
mod voc;
pub mod xyxy;
mod yolo;

/// That a folder's pictures or annotations cannot be used; what is wrong with them follows.
#[derive(Debug, thiserror::Error)]
#[error("the data in {} cannot be used", .0.display())]
pub struct BadData(pub std::path::PathBuf);
