//! Which broker, and as whom: what the command line says, with the files that it names.

use std::path::Path;

use anyhow::{Context, Result};
use ternwatch_bundle::hex;
use ternwatch_ota::push::{Broker, Identity, PushError, Tls};

use crate::cli;
use crate::files;

/// Items of files in PEM form: what they are, and what marks them. Keys are of several kinds.
const CERTIFICATE: (&str, &str) = ("certificate", "-----BEGIN CERTIFICATE-----");
const KEY: (&str, &str) = ("private key", "PRIVATE KEY-----");
const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// Where the password may be.
const PASSWORD_VARIABLE: &str = "TERNWATCH_MQTT_PASSWORD";

/// The broker, if the files are what they have to be.
pub(super) fn broker(args: &cli::Broker) -> Result<Broker> {
    let credentials = match &args.username {
        None => None,
        Some(username) => Some((username.clone(), password(args)?)),
    };
    let tls = match (args.tls, &args.ca_file) {
        (false, _) => None,
        (true, None) => Some(Tls::SystemAuthorities),
        (true, Some(path)) => Some(Tls::Authorities(pem("--ca-file", path, CERTIFICATE)?)),
    };
    let identity = match (&args.client_certificate, &args.client_key) {
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: pem("--client-certificate", certificate, CERTIFICATE)?,
            key: pem("--client-key", key, KEY)?,
        }),
        _ => None,
    };
    Ok(Broker {
        host: args.host.clone(),
        port: args.port.unwrap_or(if args.tls { 8883 } else { 1883 }),
        credentials,
        tls,
        identity,
        // In containers all processes have the same number.
        client_id: format!("quant-tool-{}", hex::encode(&files::random::<8>()?)),
    })
}

/// A file in PEM form with an item of this kind: a wrong one is told of before anything is sent.
fn pem(option: &str, path: &Path, (what, begin): (&str, &str)) -> Result<Vec<u8>> {
    let pem = files::read(path)?;
    let text = String::from_utf8_lossy(&pem);
    let mut lines = text.lines().map(str::trim_end);
    if lines.any(|line| line.ends_with(begin) && line != ENCRYPTED_KEY) {
        return Ok(pem);
    }
    let without = match text.contains(ENCRYPTED_KEY) {
        true => " that needs no password",
        false => "",
    };
    let path = path.display();
    let text = format!("{option}: {path} has no {what} in PEM form{without}");
    Err(PushError::Options(text).into())
}

/// Never from the command line, which every user of the machine can read.
fn password(args: &cli::Broker) -> Result<String> {
    if let Some(path) = &args.password_file {
        let text = files::read_text(path)?;
        return Ok(text.lines().next().unwrap_or_default().into());
    }
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(password) => Ok(password),
        Err(std::env::VarError::NotPresent) => Ok(String::new()),
        Err(error) => Err(error).context(PASSWORD_VARIABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificate_or_key_are_named_with_their_option() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let refusal = |text: &str, item: (&str, &str)| {
            std::fs::write(&path, text).unwrap();
            let error = pem("--option", &path, item).err()?;
            assert!(matches!(error.downcast_ref(), Some(PushError::Options(_))));
            Some(error.to_string())
        };
        let certificate = "-----BEGIN CERTIFICATE-----\n";
        for key in ["", "EC ", "RSA "] {
            let key = format!("-----BEGIN {key}PRIVATE KEY-----\n");
            assert_eq!(refusal(&key, KEY), None);
            let error = refusal(&key, CERTIFICATE).unwrap();
            assert!(error.contains(": --option: "), "{error}");
            assert!(
                error.ends_with("file.pem has no certificate in PEM form"),
                "{error}"
            );
        }
        assert_eq!(refusal(certificate, CERTIFICATE), None);
        let error = refusal(certificate, KEY).unwrap();
        assert!(error.ends_with("has no private key in PEM form"), "{error}");
        let error = refusal("-----BEGIN ENCRYPTED PRIVATE KEY-----", KEY).unwrap();
        assert!(error.ends_with("that needs no password"), "{error}");
    }
}
