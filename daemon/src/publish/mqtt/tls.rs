//! Encryption: who vouches for the broker, what this device shows of itself, and what it means if either is refused.
//!
//! Takes what the files of the configuration contain, and the present moment; reads no file and no clock.

use super::SessionError;
use crate::clock::Timestamp;
use rumqttc::tokio_rustls::rustls::client::ClientConfig;
use rumqttc::tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use rumqttc::tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rumqttc::tokio_rustls::rustls::server::WebPkiClientVerifier;
use rumqttc::tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use rumqttc::tokio_rustls::rustls::{self, AlertDescription, CertificateError, RootCertStore};
use rumqttc::{StateError, TlsConfiguration, TlsError};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long before its end a certificate is spoken of.
const RENEW_WITHIN: Duration = Duration::from_secs(14 * 24 * 3600);

/// So many of the names in a certificate are told.
const NAMES_MAX: usize = 8;

/// A file in PEM form that a setting names.
#[derive(Clone, Debug)]
pub(super) struct PemFile {
    /// The setting, without its section.
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// What this device shows to the broker: its certificate, with those between it and the authority, and its key.
pub(super) struct Identity {
    pub(super) certificate: PemFile,
    pub(super) key: PemFile,
}

/// How connections are encrypted.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// Who vouches for the broker, in words.
    authorities: String,
    has_identity: bool,
    doubt: Option<String>,
}

impl Tls {
    /// Without `authorities`, those of the system vouch for the broker.
    pub(super) fn new(
        authorities: Option<PemFile>,
        identity: Option<Identity>,
        now: Timestamp,
    ) -> Result<Self, SessionError> {
        let provider = Arc::new(ring::default_provider());
        let named = match &authorities {
            Some(file) => file.path.display().to_string(),
            None => "this system's list".into(),
        };
        let mut config = trusting(authorities, &provider)?;
        let has_identity = identity.is_some();
        let mut doubt = None;
        if let Some(identity) = identity {
            let certified = identity.certified(&provider)?;
            let path = identity.certificate.path.display();
            doubt = doubt_about(&certified.cert, &provider, now)
                .map(|what| format!("`mqtt.client_certificate`: {path} {what}"));
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        }
        Ok(Self {
            config: Arc::new(config),
            authorities: named,
            has_identity,
            doubt,
        })
    }

    /// For the library, whatever the version of the protocol.
    pub(super) fn configuration(&self) -> TlsConfiguration {
        TlsConfiguration::Rustls(self.config.clone())
    }

    /// What is doubtful about this device's certificate. A clock that is not set yet is no reason to give up.
    pub(super) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// What a failed connection to `host` means, and which setting is about it; nothing if encryption is not the reason.
    pub(super) fn explain(&self, host: &str, error: &(dyn Error + 'static)) -> Option<String> {
        match cause(error)? {
            Cause::Library(rustls::Error::InvalidCertificate(why)) => {
                Some(self.explain_certificate(host, why))
            }
            Cause::Library(rustls::Error::AlertReceived(alert)) => {
                Some(explain_alert(*alert, self.has_identity))
            }
            Cause::Library(rustls::Error::InvalidMessage(_)) | Cause::Closed => Some(
                "it does not encrypt the connection: `mqtt.port` must be its port for that".into(),
            ),
            Cause::Library(_) => None,
            Cause::Name => Some(format!(
                "`mqtt.host`: {host:?} is no name that a certificate can be for"
            )),
        }
    }

    fn explain_certificate(&self, host: &str, why: &CertificateError) -> String {
        use CertificateError as E;
        let certificate = "the broker's certificate";
        match why {
            // Another authority may have the same name.
            E::UnknownIssuer | E::BadSignature => format!(
                "{certificate} is signed by no authority of {} (`mqtt.ca_file`)",
                self.authorities
            ),
            E::ExpiredContext { not_after, .. } => {
                format!("{certificate} has expired on {}", date(*not_after))
            }
            E::Expired => format!("{certificate} has expired"),
            E::NotValidYetContext { not_before, .. } => format!(
                "{certificate} is not valid before {}: is this device's clock right?",
                date(*not_before)
            ),
            E::NotValidYet => {
                format!("{certificate} is not valid yet: is this device's clock right?")
            }
            E::NotValidForNameContext { presented, .. } => {
                let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
                let names = match names.get(..NAMES_MAX) {
                    Some(first) => format!("{} and others", first.join(", ")),
                    None if names.is_empty() => "no name at all".into(),
                    None => names.join(", "),
                };
                format!("{certificate} is for {names}, and not for {host:?} (`mqtt.host`)")
            }
            E::NotValidForName => format!("{certificate} is not for {host:?} (`mqtt.host`)"),
            E::Revoked => format!("{certificate} is revoked"),
            other => format!("{certificate} is not accepted: {other}"),
        }
    }
}

/// What the broker says that it does not like.
fn explain_alert(alert: AlertDescription, has_identity: bool) -> String {
    use AlertDescription as A;
    let shown = "`mqtt.client_certificate`";
    match alert {
        A::CertificateRequired => {
            format!("it demands a certificate of this device ({shown})")
        }
        // Before TLS 1.3 there was no alert of its own for that.
        A::HandshakeFailure if !has_identity => format!(
            "it refuses the encrypted connection; perhaps it demands a certificate of this device ({shown})"
        ),
        A::UnknownCA if has_identity => {
            format!("it does not know the authority that signed {shown}")
        }
        A::CertificateExpired => format!("it says that {shown} has expired"),
        A::CertificateRevoked => format!("it says that {shown} is revoked"),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateUnknown
        | A::AccessDenied
        | A::DecryptError
        | A::DecryptionFailed
            if has_identity =>
        {
            format!("it does not accept {shown}: {alert:?}")
        }
        other => format!("it refuses the encrypted connection: {other:?}"),
    }
}

/// A configuration that trusts these authorities, or those of the system, and shows nothing of this device.
fn trusting(
    authorities: Option<PemFile>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, SessionError> {
    let Some(file) = authorities else {
        return match TlsConfiguration::try_default_rustls() {
            Ok(TlsConfiguration::Rustls(config)) => Ok(ClientConfig::clone(&config)),
            Ok(_) => Err(SessionError::Options("the system has no TLS".into())),
            Err(error) => Err(SessionError::Options(error.to_string())),
        };
    };
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(file.certificates()?);
    if usable == 0 {
        return Err(file.wrong("has no certificate that can be read"));
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SessionError::Options(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl PemFile {
    fn wrong(&self, what: impl Into<String>) -> SessionError {
        SessionError::Content {
            key: self.key,
            path: self.path.clone(),
            what: what.into(),
        }
    }

    /// At least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, SessionError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let found = found.map_err(|error| self.wrong(format!("is damaged: {error}")))?;
        if found.is_empty() {
            return Err(self.wrong("has no certificate in PEM form"));
        }
        Ok(found)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, SessionError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            pem::Error::NoItemsFound if self.has("-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
                self.wrong("is locked with a passphrase, which a service cannot be asked for")
            }
            pem::Error::NoItemsFound => self.wrong("has no private key in PEM form"),
            error => self.wrong(format!("is damaged: {error}")),
        })
    }

    fn has(&self, mark: &str) -> bool {
        self.bytes
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
    }
}

impl Identity {
    /// Checks that both files are what they should be and belong together.
    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, SessionError> {
        let chain = self.certificate.certificates()?;
        let key = self.key.private_key()?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| {
                self.key
                    .wrong(format!("has a key that is of no use here: {error}"))
            })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(certified)
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(SessionError::KeyMismatch {
                key: self.key.path.clone(),
                certificate: self.certificate.path.clone(),
            }),
            Err(error) if error.to_string().contains("UnsupportedCertVersion") => {
                Err(self.certificate.wrong(
                    "has a certificate of an old version: X.509 version 3 is needed (`openssl x509 -req` makes it with -extfile)",
                ))
            }
            Err(error) => Err(self
                .certificate
                .wrong(format!("has a certificate that cannot be read: {error}"))),
        }
    }
}

/// What is doubtful about the first of these certificates.
fn doubt_about(
    chain: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
    now: Timestamp,
) -> Option<String> {
    use CertificateError as E;
    let certificate = chain.first()?;
    // Times and purpose are looked at before the authority is, so any authority serves the question.
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).ok()?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().ok()?;
    let verdict = |at: Duration| {
        let at = UnixTime::since_unix_epoch(at);
        match verifier.verify_client_cert(certificate, &[], at) {
            Err(rustls::Error::InvalidCertificate(why)) => Some(why),
            _ => None,
        }
    };
    let seconds = u64::try_from(now.realtime_ns / 1_000_000_000).unwrap_or(0);
    let now = Duration::from_secs(seconds);
    match verdict(now) {
        Some(E::ExpiredContext { not_after, .. }) => {
            Some(format!("has expired on {}", date(not_after)))
        }
        Some(E::NotValidYetContext { not_before, .. }) => Some(format!(
            "is not valid before {}: is this device's clock right?",
            date(not_before)
        )),
        Some(E::InvalidPurpose | E::InvalidPurposeContext { .. }) => {
            Some("is not for clients: its extended key usage lacks clientAuth".into())
        }
        _ => match verdict(now + RENEW_WITHIN) {
            Some(E::ExpiredContext { not_after, .. }) => {
                Some(format!("expires on {}", date(not_after)))
            }
            _ => None,
        },
    }
}

/// A name as the library has it, `DnsName("broker.lan")`, without the decoration.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

/// `2026-11-24T06:40:01Z`.
fn date(time: UnixTime) -> String {
    let moment = Timestamp {
        realtime_ns: i128::from(time.as_secs()) * 1_000_000_000,
        monotonic_ns: 0,
    };
    moment.rfc3339().replace(".000000", "")
}

/// Why there is no encrypted connection.
enum Cause<'a> {
    /// The library says so.
    Library(&'a rustls::Error),
    /// The other end hung up in the middle of the negotiation.
    Closed,
    /// The name cannot be checked.
    Name,
}

fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as E;
    matches!(
        kind,
        E::UnexpectedEof | E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe
    )
}

/// What lies at the bottom of the library's error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<Cause<'a>> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(Cause::Library(found));
        }
        match error.downcast_ref::<TlsError>() {
            Some(TlsError::DNSName(_)) => return Some(Cause::Name),
            Some(TlsError::Io(error)) if is_end(error.kind()) => return Some(Cause::Closed),
            _ => {}
        }
        // Two errors on the way hide what they were made of from the ordinary way down.
        let inner = (error.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
        next = match (inner, error.downcast_ref::<StateError>()) {
            (Some(inner), _) => Some(inner),
            (None, Some(StateError::Deserialization(inner))) => Some(inner),
            (None, _) => error.source(),
        };
    }
    None
}
