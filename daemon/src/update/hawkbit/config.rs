//! The `[update.hawkbit]` section, and the token that it names.

use crate::config::choice::Choice;
use crate::config::{Invalid, credential, in_range};
use crate::update::web;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ternwatch_ota::identity::is_word;
use thiserror::Error;

/// Longest name of a tenant or a controller.
const NAME_BYTES_MAX: usize = 64;
/// Longest token in bytes; hawkBit's have 32.
const TOKEN_BYTES_MAX: usize = 1024;
/// From one question to the next one, in seconds: up to a week.
const POLL_S: RangeInclusive<u32> = 1..=604_800;

/// Which server says which model is installed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the server is; empty: there is none.
    pub url: String,
    /// The tenant there.
    pub tenant: String,
    /// What this device is called there; empty: as `device.id` says.
    pub controller_id: String,
    /// Whose token it shows.
    #[serde(with = "crate::config::choice")]
    pub token: Token,
    /// The file that has it, or the name of one of systemd's credentials; empty: none is shown.
    pub token_file: PathBuf,
    /// The server is not asked more often than every so many seconds.
    pub poll_s_min: u32,
    /// It is asked at least every so many seconds.
    pub poll_s_max: u32,
}

/// Whose token a device shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Its own.
    Target,
    /// That of all devices of the tenant.
    Gateway,
}

impl Choice for Token {
    const NAMED: &'static [(&'static str, Self)] =
        &[("target", Self::Target), ("gateway", Self::Gateway)];
}

/// What stands in the header `Authorization`. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(Arc<str>);

impl Authorization {
    /// The value of the header.
    pub fn header(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where the server is, and what it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its URL, without a slash at the end.
    base: String,
    /// This device's resource there.
    pub(super) home: String,
    /// What is shown.
    pub authorization: Option<Authorization>,
}

/// Why the server cannot be asked.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The token's file is not readable.
    #[error("`update.hawkbit.token_file`: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A credential is named, but systemd gave none.
    #[error(
        "`update.hawkbit.token_file`: {} is a credential, and systemd passed none ($CREDENTIALS_DIRECTORY is not set)",
        .0.display()
    )]
    NoCredentials(PathBuf),
    /// What it holds is no token.
    #[error("`update.hawkbit.token_file`: {} has no token in it: one line of letters, digits and signs", .0.display())]
    Content(PathBuf),
}

impl Config {
    /// Whether there is a server.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// Checks the values.
    pub fn validate(&self) -> Result<(), Invalid> {
        let is_plain = !self.url.contains(['?', '#']);
        if self.is_on() && !(is_plain && web::is_beginning(&format!("{}/", self.base()))) {
            let reason = format!("{:?} is not https://HOST or http://HOST", self.url);
            return Err(Invalid::new("update.hawkbit.url", reason));
        }
        let names = [
            ("update.hawkbit.tenant", &self.tenant),
            ("update.hawkbit.controller_id", &self.controller_id),
        ];
        for (key, name) in names {
            let may_be_empty = key.ends_with("controller_id");
            if !(is_word(name, NAME_BYTES_MAX) || may_be_empty && name.is_empty()) {
                let reason = "is not 1 to 64 letters, digits, `.`, `_` and `-`";
                return Err(Invalid::new(key, reason));
            }
        }
        in_range("update.hawkbit.poll_s_min", self.poll_s_min, POLL_S)?;
        in_range("update.hawkbit.poll_s_max", self.poll_s_max, POLL_S)
    }

    /// How long to wait until the server is asked again, if it wishes so.
    pub fn pause(&self, wished: Option<Duration>) -> Duration {
        let [least, most] =
            [self.poll_s_min, self.poll_s_max].map(|s| Duration::from_secs(u64::from(s)));
        wished.unwrap_or(most).min(most).max(least)
    }

    /// Reads the token; none if there is no server.
    pub fn access(&self, device: &str) -> Result<Option<Access>, AccessError> {
        if !self.is_on() {
            return Ok(None);
        }
        let base = self.base().to_owned();
        let controller = if self.controller_id.is_empty() {
            device
        } else {
            &self.controller_id
        };
        Ok(Some(Access {
            home: format!("{base}/{}/controller/v1/{controller}", self.tenant),
            base,
            authorization: self.authorization()?,
        }))
    }

    fn base(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    fn authorization(&self) -> Result<Option<Authorization>, AccessError> {
        if self.token_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let path = credential::located(&self.token_file)
            .ok_or_else(|| AccessError::NoCredentials(self.token_file.clone()))?;
        let mut text = String::new();
        std::fs::File::open(&path)
            .and_then(|file| {
                file.take(2 * TOKEN_BYTES_MAX as u64)
                    .read_to_string(&mut text)
            })
            .map_err(|source| AccessError::Read {
                path: path.clone(),
                source,
            })?;
        let token = text.trim_end_matches(['\r', '\n']);
        let is_token = (1..=TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token {
            return Err(AccessError::Content(path));
        }
        let scheme = match self.token {
            Token::Target => "TargetToken",
            Token::Gateway => "GatewayToken",
        };
        Ok(Some(Authorization(format!("{scheme} {token}").into())))
    }
}

impl Access {
    /// How all URLs of the server begin.
    pub fn beginning(&self) -> String {
        format!("{}/", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        Config {
            url: url.into(),
            tenant: "DEFAULT".into(),
            controller_id: String::new(),
            token: Token::Target,
            token_file: PathBuf::new(),
            poll_s_min: 30,
            poll_s_max: 3600,
        }
    }

    #[test]
    fn a_server_is_named_by_its_host() {
        for good in [
            "",
            "https://hawkbit.example",
            "http://10.0.0.7:8080/",
            "https://h/bit",
        ] {
            assert_eq!(config(good).validate(), Ok(()), "{good}");
        }
        for bad in [
            "hawkbit.example",
            "ftp://a",
            "https://",
            "https://a?b",
            "https://a b",
        ] {
            let invalid = config(bad).validate().expect_err(bad);
            assert_eq!(invalid.key, "update.hawkbit.url", "{bad}");
        }
        let mut strange = config("");
        strange.tenant = "a/b".into();
        let invalid = strange.validate().expect_err("a path");
        assert_eq!(invalid.key, "update.hawkbit.tenant");
    }

    #[test]
    fn the_servers_wish_is_honoured_within_bounds() {
        let config = config("");
        let seconds = |wish| config.pause(Some(Duration::from_secs(wish))).as_secs();
        assert_eq!([0, 300, u64::MAX].map(seconds), [30, 300, 3600]);
        assert_eq!(config.pause(None).as_secs(), 3600);
        let odd = Config {
            poll_s_max: 1,
            ..config
        };
        assert_eq!(odd.pause(None).as_secs(), 30, "the server is spared");
    }

    #[test]
    fn the_token_comes_from_its_file_and_is_not_shown() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("token");
        let mut config = config("https://h/");
        config.token_file = path.clone();
        assert!(matches!(config.access("pi"), Err(AccessError::Read { .. })));
        for (text, is_good) in [
            ("hunter2\n", true),
            ("", false),
            ("a b", false),
            ("a\nb", false),
        ] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(config.access("pi").is_ok(), is_good, "{text:?}");
        }
        std::fs::write(&path, "hunter2\n").expect("written");
        let access = config.access("pi").expect("a token").expect("a server");
        assert_eq!(access.home, "https://h/DEFAULT/controller/v1/pi");
        assert!(!format!("{access:?}").contains("hunter2"));
        let header = access.authorization.as_ref().map(Authorization::header);
        assert_eq!(header, Some("TargetToken hunter2"));
    }
}
