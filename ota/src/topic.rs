//! The topics: all lie below `<prefix>/<device>/model`, where the state is.

use crate::digest::Digest;
use crate::identity::is_word;
use crate::offer::CHUNKS_MAX;

/// Longest id of a device in bytes.
const DEVICE_BYTES_MAX: usize = 64;

/// `<prefix>/<device>/model`: the state.
pub fn model(prefix: &str, device: &str) -> String {
    format!("{prefix}/{device}/model")
}

/// Where models are offered to the device whose state is at `model`.
pub fn offer(model: &str) -> String {
    format!("{model}/offer")
}

/// Where that device asks for chunks.
pub fn request(model: &str) -> String {
    format!("{model}/request")
}

/// Where keyrings are sent to it.
pub fn keyring(model: &str) -> String {
    format!("{model}/keyring")
}

/// Where a chunk is sent to it.
pub fn chunk(model: &str, sha256: &Digest, index: usize) -> String {
    format!("{model}/chunk/{sha256}/{index}")
}

/// Which chunk of which file comes on the topic `<model>/<rest>`, if it is one that a bundle may have.
pub fn chunk_of(rest: &[u8]) -> Option<(Digest, usize)> {
    let rest = std::str::from_utf8(rest).ok()?.strip_prefix("chunk/")?;
    let (sha256, index) = rest.split_once('/')?;
    // One number has one text: no sign, no zeros before it.
    let number: usize = index.parse().ok().filter(|number| *number < CHUNKS_MAX)?;
    (number.to_string() == index).then_some((Digest::parse(sha256)?, number))
}

/// The device and the rest of a topic below the prefix: `<prefix>/<device>/<rest>`.
pub fn split<'a>(prefix: &str, topic: &'a str) -> Option<(&'a str, &'a str)> {
    let below = topic.strip_prefix(prefix)?.strip_prefix('/')?;
    let (device, rest) = below.split_once('/')?;
    is_device(device).then_some((device, rest))
}

/// Whether the text may be the id of a device.
pub fn is_device(text: &str) -> bool {
    is_word(text, DEVICE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back() {
        let sha256 = Digest::of(b"file");
        assert_eq!(model("ternwatch", "pi"), "ternwatch/pi/model");
        let base = model("home/cams", "pi");
        let topic = chunk(&base, &sha256, 7);
        let rest = topic.strip_prefix("home/cams/pi/model/").expect("below");
        assert_eq!(chunk_of(rest.as_bytes()), Some((sha256, 7)));
        for index in ["07", "+7", "-1", "513", ""] {
            let other = rest.replace("/7", &format!("/{index}"));
            assert_eq!(chunk_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(
            split("home/cams", &request(&base)),
            Some(("pi", "model/request"))
        );
        for bad in ["home/cams/pi", "home/other/pi/model", "home/cams/p i/model"] {
            assert_eq!(split("home/cams", bad), None, "{bad}");
        }
    }
}
