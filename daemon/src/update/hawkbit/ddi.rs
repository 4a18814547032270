//! What the server says (Direct Device Integration API), read and bounded: pure.
//!
//! The documents are of a server that was chosen, and not trusted all the same: what is longer than it needs to be is refused,
//! and nothing of a model is believed before its signature.

use crate::update::digest::Digest;
use serde::Deserialize;
use std::time::Duration;
use ternwatch_ota::identity::{NAME_BYTES_MAX, is_word};
use ternwatch_ota::offer::{Claim, is_url};
use thiserror::Error;

/// Longest document in bytes that is read.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Longest id of an action in bytes; hawkBit's are numbers.
const ACTION_BYTES_MAX: usize = 32;
/// How the file of a model is called.
const SUFFIX: &str = ".tern";

/// Why a document is none of the API.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Not the JSON that the API describes.
    #[error("the server's answer is not what the API says: {0}")]
    Syntax(#[from] serde_json::Error),
    /// The id of an action is none.
    #[error("the server names an action by something else than 1 to 32 letters and digits")]
    Action,
}

#[derive(Deserialize)]
struct Link {
    href: String,
}

/// What there is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// When to ask again.
    pub sleep: Option<Duration>,
    /// Where the device is to tell of itself.
    pub config_data: Option<String>,
    /// Where a deployment is described.
    pub deployment: Option<String>,
    /// Where it is said what to cancel.
    pub cancel: Option<String>,
}

impl Base {
    /// Reads the answer to a poll.
    pub fn parse(document: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            config: Option<Config>,
            #[serde(rename = "_links", default)]
            links: Option<Links>,
        }
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            polling: Option<Polling>,
        }
        #[derive(Deserialize)]
        struct Polling {
            sleep: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Links {
            #[serde(default)]
            config_data: Option<Link>,
            #[serde(default)]
            deployment_base: Option<Link>,
            #[serde(default)]
            cancel_action: Option<Link>,
        }
        let Document { config, links } = serde_json::from_slice(document)?;
        let links = links.unwrap_or_default();
        let href = |link: Option<Link>| link.map(|link| link.href);
        let polling = config.and_then(|config| config.polling);
        Ok(Self {
            sleep: polling.and_then(|polling| seconds(&polling.sleep)),
            config_data: href(links.config_data),
            deployment: href(links.deployment_base),
            cancel: href(links.cancel_action),
        })
    }
}

/// `HH:MM:SS`.
fn seconds(text: &str) -> Option<Duration> {
    let mut sum = 0_u64;
    let mut parts = 0;
    for part in text.split(':') {
        let number: u32 = part.parse().ok()?;
        sum = sum.checked_mul(60)?.checked_add(u64::from(number))?;
        parts += 1;
    }
    (parts == 3).then(|| Duration::from_secs(sum))
}

/// How a part of a deployment is to be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Not now.
    Skip,
    /// If nobody has anything against it.
    Attempt,
    /// Now.
    Forced,
}

/// What is to be installed.
#[derive(Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The action's id.
    pub action: String,
    /// Whether to fetch it.
    pub download: Demand,
    /// Whether to install it.
    pub update: Demand,
    /// The model, or why it is none.
    pub model: Result<Artifact, &'static str>,
}

/// A file that is to become the model.
#[derive(Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What the software module says.
    pub claim: Claim,
    /// Digest of the file.
    pub sha256: Digest,
    /// Its length.
    pub bytes: usize,
    /// Where it can be fetched, the better way first.
    pub urls: Vec<String>,
}

#[derive(Deserialize)]
struct Chunk {
    name: String,
    version: String,
    #[serde(default)]
    artifacts: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    hashes: Hashes,
    size: u64,
    #[serde(rename = "_links")]
    links: FileLinks,
}

#[derive(Deserialize)]
struct Hashes {
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileLinks {
    #[serde(default)]
    download: Option<Link>,
    #[serde(default)]
    download_http: Option<Link>,
}

impl Deployment {
    /// Reads a deployment.
    pub fn parse(document: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Document {
            id: String,
            deployment: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            download: Demand,
            update: Demand,
            chunks: Vec<Chunk>,
        }
        let Document { id, deployment } = serde_json::from_slice(document)?;
        Ok(Self {
            action: action(id)?,
            download: deployment.download,
            update: deployment.update,
            model: artifact(deployment.chunks),
        })
    }
}

fn action(id: String) -> Result<String, DocumentError> {
    let is_id = is_word(&id, ACTION_BYTES_MAX);
    is_id.then_some(id).ok_or(DocumentError::Action)
}

/// The one file of the one module.
fn artifact(chunks: Vec<Chunk>) -> Result<Artifact, &'static str> {
    let Ok([chunk]) = <[Chunk; 1]>::try_from(chunks) else {
        return Err("the distribution set has not exactly one software module");
    };
    let Ok([file]) = <[File; 1]>::try_from(chunk.artifacts) else {
        return Err("the software module has not exactly one artifact");
    };
    if !file.filename.ends_with(SUFFIX) {
        return Err("the artifact's name does not end in .tern");
    }
    if !is_word(&chunk.name, NAME_BYTES_MAX) {
        return Err("the software module's name is none of a model");
    }
    let version = chunk.version.parse::<u64>();
    let version = version.map_err(|_| "the software module's version is not a whole number")?;
    let sha256 = file.hashes.sha256.as_deref().and_then(Digest::parse);
    let sha256 = sha256.ok_or("the artifact has no SHA-256")?;
    let bytes = usize::try_from(file.size).map_err(|_| "the artifact is too large")?;
    let links = [file.links.download, file.links.download_http];
    let urls = links.into_iter().flatten().map(|link| link.href);
    Ok(Artifact {
        claim: Claim {
            name: chunk.name,
            version,
        },
        sha256,
        bytes,
        urls: urls.filter(|url| is_url(url)).collect(),
    })
}

/// Reads which action is to be cancelled.
pub fn parse_cancel(document: &[u8]) -> Result<String, DocumentError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        cancel_action: Content,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Content {
        stop_id: String,
    }
    let document: Document = serde_json::from_slice(document)?;
    action(document.cancel_action.stop_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment() -> Value {
        json!({
            "id": "17",
            "deployment": {
                "download": "forced",
                "update": "attempt",
                "chunks": [{
                    "part": "bApp", "version": "4", "name": "person",
                    "artifacts": [{
                        "filename": "person.tern",
                        "hashes": { "sha1": "00", "md5": "00", "sha256": "ab".repeat(32) },
                        "size": 100_000,
                        "_links": {
                            "download": { "href": "https://h/f" },
                            "md5sum": { "href": "https://h/f.MD5SUM" },
                            "download-http": { "href": "http://h/f" },
                        },
                    }],
                }],
            },
            "actionHistory": { "status": "RUNNING", "messages": ["x"] },
        })
    }

    fn parse(document: &Value) -> Result<Deployment, DocumentError> {
        Deployment::parse(document.to_string().as_bytes())
    }

    #[test]
    fn a_poll_says_what_to_do_and_when_to_ask_again() {
        let base = Base::parse(
            br#"{"config":{"polling":{"sleep":"01:02:03"}},"_links":{
                "deploymentBase":{"href":"https://h/d"},"installedBase":{"href":"https://h/i"}}}"#,
        );
        let base = base.expect("a base");
        assert_eq!(base.sleep, Some(Duration::from_secs(3723)));
        assert_eq!(base.deployment.as_deref(), Some("https://h/d"));
        assert_eq!((base.config_data, base.cancel), (None, None));
        assert_eq!(Base::parse(b"{}").expect("nothing to do"), Base::default());
        for odd in ["", "1", "01:02", "1:2:3:4", "-1:00:00", "00:00:99999999999"] {
            let document = json!({ "config": { "polling": { "sleep": odd } } });
            let base = Base::parse(document.to_string().as_bytes()).expect("a base");
            assert_eq!(base.sleep, None, "{odd}");
        }
        assert!(Base::parse(b"<html>").is_err());
    }

    #[test]
    fn a_deployment_of_one_model_is_understood() {
        let deployment = parse(&deployment()).expect("a deployment");
        assert_eq!(deployment.action, "17");
        assert_eq!(
            (deployment.download, deployment.update),
            (Demand::Forced, Demand::Attempt)
        );
        let artifact = deployment.model.expect("a model");
        assert_eq!(
            (artifact.claim.name.as_str(), artifact.claim.version),
            ("person", 4)
        );
        assert_eq!(artifact.urls, ["https://h/f", "http://h/f"]);
        assert_eq!(artifact.bytes, 100_000);
    }

    #[test]
    fn what_is_no_model_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 7] = [
            (|chunk| chunk["artifacts"] = json!([]), "one artifact"),
            (|chunk| chunk["name"] = "a b".into(), "name"),
            (|chunk| chunk["version"] = "4.1".into(), "whole number"),
            (|chunk| chunk["version"] = "-4".into(), "whole number"),
            (
                |chunk| chunk["artifacts"][0]["filename"] = "os.img".into(),
                ".tern",
            ),
            (
                |chunk| chunk["artifacts"][0]["hashes"] = json!({}),
                "SHA-256",
            ),
            (
                |chunk| {
                    let first = chunk["artifacts"][0].clone();
                    chunk["artifacts"] = json!([first.clone(), first]);
                },
                "one artifact",
            ),
        ];
        for (change, words) in cases {
            let mut document = deployment();
            change(&mut document["deployment"]["chunks"][0]);
            let why = parse(&document)
                .expect("a deployment")
                .model
                .expect_err(words);
            assert!(why.contains(words), "{why}");
        }
        let mut none = deployment();
        none["deployment"]["chunks"] = json!([]);
        assert!(parse(&none).expect("a deployment").model.is_err());
        for (key, value) in [("id", json!("../1")), ("id", json!("")), ("id", json!(7))] {
            let mut document = deployment();
            document[key] = value;
            assert!(parse(&document).is_err());
        }
        let mut strange = deployment();
        strange["deployment"]["update"] = "perhaps".into();
        assert!(parse(&strange).is_err());
        // A link to anything but a web server is none.
        let mut odd = deployment();
        odd["deployment"]["chunks"][0]["artifacts"][0]["_links"]["download"]["href"] =
            "file:///etc".into();
        let urls = parse(&odd)
            .expect("a deployment")
            .model
            .expect("a model")
            .urls;
        assert_eq!(urls, ["http://h/f"]);
    }

    #[test]
    fn a_cancellation_names_its_action() {
        let cancel = br#"{"id":"18","cancelAction":{"stopId":"17"}}"#;
        assert_eq!(parse_cancel(cancel).expect("an id"), "17");
        assert!(parse_cancel(br#"{"cancelAction":{"stopId":"a/b"}}"#).is_err());
        assert!(parse_cancel(b"{}").is_err());
    }
}
