//! quant-tool: trains, quantizes, evaluates, signs and inspects the detectors that Ternwatch runs.
mod data;
mod network;
mod progress;
mod quantize;
mod train;

// Training makes and drops large tensors in every step; glibc gives each back to the kernel, which then clears its pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::{path::PathBuf, sync::Arc};
fn main() -> anyhow::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    let config = train::config::Config::read(&PathBuf::from(&a[1]))?;
    let folder = PathBuf::from(&a[3]);
    std::fs::create_dir_all(&folder)?;
    let network = network::Network::new(&config.network, 1);
    eprintln!("{} MMAC", network.macs() as f64 / 1e6);
    let dataset = data::coco::Dataset::read(&PathBuf::from(&a[2]), "person")?;
    let photos = Arc::new(data::augment::Photos::load(&dataset, &config.augment)?);
    for stage in [
        train::stage::Stage::Float,
        train::stage::Stage::Soft,
        train::stage::Stage::Hard,
    ] {
        train::stage::run(stage, &config, &network, &photos, &folder)?;
    }
    Ok(())
}
