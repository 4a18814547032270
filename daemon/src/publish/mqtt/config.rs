//! The `[mqtt]` section, and the session that it describes.

use super::link::Session;
use super::tls::{Identity, PemFile, Tls};
use crate::clock::Timestamp;
use crate::config::choice::Choice;
use crate::config::{Invalid, Secret, credential, in_range};
use crate::disk;
use crate::exit::Reason;
use crate::publish::topic;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::task::JoinError;

/// A file with a certificate or a password that is longer is neither.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The `[mqtt]` section.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whether to publish over MQTT at all.
    pub enabled: bool,
    /// Name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Version of the protocol.
    #[serde(with = "crate::config::choice")]
    pub protocol: Protocol,
    /// First part of every topic.
    pub prefix: String,
    /// Empty: `ternwatch-` and the device id.
    pub client_id: String,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Empty: none.
    pub username: String,
    /// Empty: none.
    pub password: Secret,
    /// Empty: none. A name without a slash is one of systemd's credentials.
    pub password_file: PathBuf,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Empty: the system's authorities.
    pub ca_file: PathBuf,
    /// Empty: this device shows no certificate. A name without a slash is one of systemd's credentials.
    pub client_certificate: PathBuf,
    /// The certificate's private key; set if and only if that is.
    pub client_key: PathBuf,
    /// Whether whoever may publish may also switch detection off, change zones, and so on.
    pub commands: bool,
    /// Bound of the queue of frames' documents.
    pub queue_documents_max: usize,
    /// Bound of the events that wait.
    pub queue_events_max: usize,
    /// Bound of the memory and of the files for them, in MiB.
    pub outbox_mib_max: usize,
    /// Seconds between two times that events are written to the card.
    pub outbox_sync_s: f64,
}

/// Versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5.
    V5,
    /// MQTT 3.1.1.
    V311,
}

impl Choice for Protocol {
    const NAMED: &'static [(&'static str, Self)] = &[("5", Self::V5), ("3.1.1", Self::V311)];
}

/// Why there is no session to open, or none any more.
#[derive(Debug, Error)]
pub enum SessionError {
    /// A file that the configuration names is not there or not readable.
    #[error("`mqtt.{key}`: cannot read {}", path.display())]
    Read {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A credential is named, but systemd gave none.
    #[error(
        "`mqtt.{key}`: {} is a credential, and systemd passed none ($CREDENTIALS_DIRECTORY is not set)",
        path.display()
    )]
    NoCredentials {
        /// The setting.
        key: &'static str,
        /// The credential.
        path: PathBuf,
    },
    /// A file has something else in it than it should.
    #[error("`mqtt.{key}`: {} {what}", path.display())]
    Content {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "`mqtt.client_key`: {} does not belong to the first certificate in {} (`mqtt.client_certificate`)",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The system has no usable certificate authorities, or the library refuses the options.
    #[error("cannot prepare the connection: {0}")]
    Options(String),
    /// The task that keeps the connection has ended: a bug.
    #[error("nothing keeps the connection to the broker any more")]
    Unkept(#[source] Option<JoinError>),
}

impl SessionError {
    /// The exit code that says so.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unkept(_) => Reason::Software,
            _ => Reason::Config,
        }
    }
}

impl Config {
    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        let text = |key, value: &str, len_max: usize| {
            if value.len() > len_max || value.chars().any(char::is_control) {
                let reason = format!("is longer than {len_max} bytes or has control characters");
                return Err(Invalid::new(key, reason));
            }
            Ok(())
        };
        topic::validate_prefix("mqtt.prefix", &self.prefix)?;
        if self.host.is_empty() {
            return Err(Invalid::new("mqtt.host", "is empty"));
        }
        text("mqtt.host", &self.host, 255)?;
        text("mqtt.client_id", &self.client_id, 128)?;
        text("mqtt.username", &self.username, 1024)?;
        in_range("mqtt.port", self.port, 1..=u16::MAX)?;
        in_range("mqtt.keep_alive_s", self.keep_alive_s, 5..=3600)?;
        in_range(
            "mqtt.queue_documents_max",
            self.queue_documents_max,
            1..=10_000,
        )?;
        in_range("mqtt.queue_events_max", self.queue_events_max, 1..=100_000)?;
        in_range("mqtt.outbox_mib_max", self.outbox_mib_max, 2..=1024)?;
        in_range("mqtt.outbox_sync_s", self.outbox_sync_s, 0.0..=60.0)?;
        let has_password = !self.password.expose().is_empty();
        let has_password_file = !self.password_file.as_os_str().is_empty();
        if has_password && has_password_file {
            let reason = "is set, and `mqtt.password_file` is set too; keep one";
            return Err(Invalid::new("mqtt.password", reason));
        }
        if (has_password || has_password_file) && self.username.is_empty() {
            let key = if has_password {
                "mqtt.password"
            } else {
                "mqtt.password_file"
            };
            return Err(Invalid::new(key, "is set, but `mqtt.username` is empty"));
        }
        self.validate_tls()
    }

    fn validate_tls(&self) -> Result<(), Invalid> {
        let files = [
            ("mqtt.ca_file", &self.ca_file),
            ("mqtt.client_certificate", &self.client_certificate),
            ("mqtt.client_key", &self.client_key),
        ];
        let is_set = |path: &Path| !path.as_os_str().is_empty();
        if let Some((key, _)) = files.iter().find(|(_, path)| !self.tls && is_set(path)) {
            let reason = "is set, but `mqtt.tls` is false: the connection would not be encrypted";
            return Err(Invalid::new(*key, reason));
        }
        let [_, certificate, key] = files;
        for (one, other) in [(certificate, key), (key, certificate)] {
            if is_set(one.1) && !is_set(other.1) {
                let reason = format!("is set, but `{}` is empty; they belong together", other.0);
                return Err(Invalid::new(one.0, reason));
            }
        }
        Ok(())
    }

    /// What a connection needs to know; reads the files that the configuration names.
    pub fn session(&self, device: &str) -> Result<Session, SessionError> {
        let password = self.password()?;
        if !self.tls && password.is_some() && !is_loopback(&self.host) {
            log::warn!(
                "the password goes to {} unencrypted; see mqtt.tls",
                self.host
            );
        }
        let tls = self.tls()?;
        Ok(Session {
            protocol: self.protocol,
            host: self.host.clone(),
            port: self.port,
            client_id: if self.client_id.is_empty() {
                format!("ternwatch-{device}")
            } else {
                self.client_id.clone()
            },
            keep_alive_s: self.keep_alive_s,
            credentials: (!self.username.is_empty())
                .then(|| (self.username.clone(), password.unwrap_or_default())),
            tls,
            state_topic: topic::state(&self.prefix, device),
            leaves_will: true,
        })
    }

    fn password(&self) -> Result<Option<String>, SessionError> {
        if self.password_file.as_os_str().is_empty() {
            let password = self.password.expose();
            return Ok((!password.is_empty()).then(|| password.into()));
        }
        let file = file_or_credential("password_file", &self.password_file)?;
        let text = String::from_utf8(file.bytes).map_err(|_| SessionError::Content {
            key: file.key,
            path: file.path,
            what: "is not text".into(),
        })?;
        // Editors end a file with a line end; a password does not.
        Ok(Some(text.trim_end_matches(['\r', '\n']).into()))
    }

    fn tls(&self) -> Result<Option<Tls>, SessionError> {
        if !self.tls {
            return Ok(None);
        }
        let authorities = (!self.ca_file.as_os_str().is_empty())
            .then(|| file("ca_file", &self.ca_file))
            .transpose()?;
        let identity = (!self.client_certificate.as_os_str().is_empty())
            .then(|| {
                Ok(Identity {
                    certificate: file_or_credential(
                        "client_certificate",
                        &self.client_certificate,
                    )?,
                    key: file_or_credential("client_key", &self.client_key)?,
                })
            })
            .transpose()?;
        Tls::new(authorities, identity, Timestamp::now()).map(Some)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A file, or one of systemd's credentials if it is a name without a slash.
fn file_or_credential(key: &'static str, path: &Path) -> Result<PemFile, SessionError> {
    let found = credential::located(path).ok_or_else(|| SessionError::NoCredentials {
        key,
        path: path.into(),
    })?;
    file(key, &found)
}

fn file(key: &'static str, path: &Path) -> Result<PemFile, SessionError> {
    let bytes = disk::read(path, FILE_BYTES_MAX).map_err(|source| SessionError::Read {
        key,
        path: path.into(),
        source,
    })?;
    Ok(PemFile {
        key,
        path: path.into(),
        bytes,
    })
}
