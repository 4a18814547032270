//! Chunks from a web server, in place of a sender on the broker: ranges of a file by HTTP (RFC 9110, section 14).
//!
//! An offer may name a URL; settings say which URLs this device goes to. A thread of its own asks for the chunks that the
//! update thread wants, and puts what came where chunks from the broker are put. Threats: an offer that sends the device
//! anywhere (only named beginnings of URLs, no redirections), a server that sends too much or something else (a range
//! that is checked and read to its length only; a chunk counts only if its digest is the offer's).

use super::agent::{Input, Origin};
use super::config::Config;
use super::digest::Digest;
use super::hawkbit::{Access, Authorization};
use super::offer::Offer;
use crate::config::Invalid;
use crate::disk;
use crate::exit::Reason;
use rustls::crypto::ring;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;
use ternwatch_ota::request::CHUNKS_AT_ONCE_MAX;
use thiserror::Error;
use ureq::http::{StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Time for one answer, name resolution to last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the chunks of an errand that follow each other: those that have come before count.
const CHUNKS_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for their next bytes.
const BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for the certificates of a system.
const CA_FILE_BYTES_MAX: usize = 1 << 20;

/// Chunks to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Where the file is.
    pub url: String,
    /// The file that is wanted there.
    pub sha256: Digest,
    /// Whether the offer is a hawkBit server's.
    pub is_whole: bool,
    /// Index and place in the file of each chunk.
    pub chunks: Vec<(usize, Range<usize>)>,
}

/// The way to web servers.
#[derive(Debug)]
pub struct Web {
    allowed: Vec<String>,
    /// Where hawkBit's files are, if there is such a server.
    server: Option<String>,
    errands: SyncSender<Errand>,
}

/// Why there is no way to web servers.
#[derive(Debug, Error)]
pub enum WebError {
    /// The file of authorities is not readable.
    #[error("update.ca_file: cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of it is none of a PEM file.
    #[error("update.ca_file: {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ureq::Error,
    },
    /// It holds no certificate.
    #[error("update.ca_file: {} has no certificate in PEM form", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No thread.
    #[error("cannot start the download thread")]
    Thread(#[source] io::Error),
}

impl WebError {
    /// The exit code that says so.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read { .. } | Self::Damaged { .. } | Self::NoCertificate { .. } => Reason::Config,
            Self::Thread(_) => Reason::Unavailable,
        }
    }
}

/// Why a range did not come.
#[derive(Debug, Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("the server gives the whole file only, not ranges of it")]
    NoRanges,
    #[error("the server gives another range than the one asked for")]
    OtherRange,
    #[error("the answer ends early: {0}")]
    Short(#[from] io::Error),
}

impl Web {
    /// Starts the thread that fetches, if any URL is allowed or there is a hawkBit server. What comes goes to `inbox`.
    pub fn start(
        config: &Config,
        server: Option<&Access>,
        inbox: SyncSender<Input>,
    ) -> Result<Option<Self>, WebError> {
        if config.urls.is_empty() && server.is_none() {
            return Ok(None);
        }
        let authorization = server.and_then(|access| {
            let authorization = access.authorization.clone()?;
            Some((access.beginning(), authorization))
        });
        let client = client(&config.ca_file)?;
        let (errands, taken) = sync_channel(CHUNKS_AT_ONCE_MAX);
        thread::Builder::new()
            .name("download".into())
            .spawn(move || run(&client, authorization.as_ref(), &taken, &inbox))
            .map_err(WebError::Thread)?;
        Ok(Some(Self {
            allowed: config.urls.clone(),
            server: server.map(Access::beginning),
            errands,
        }))
    }

    /// Whether the settings allow to fetch what is offered from there. An offer that came over the broker leads to no file of
    /// the hawkBit server.
    pub fn may_fetch(&self, offer: &Offer, url: &str) -> bool {
        let server = self.server.iter().filter(|_| offer.is_whole());
        let mut allowed = self.allowed.iter().chain(server);
        allowed.any(|beginning| is_below(url, beginning))
    }

    /// Sends for chunks; `false` if too many errands wait already. What comes and the return are told.
    pub fn fetch(&self, errand: Errand) -> bool {
        self.errands.try_send(errand).is_ok()
    }
}

/// Whether a URL begins so and stays there: a server may take dots, written as they are or not, for the way up.
pub(super) fn is_below(url: &str, beginning: &str) -> bool {
    let leads_up = |rest: &str| {
        let rest = rest.to_ascii_lowercase().replace("%2e", ".");
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        path.split('/').any(|part| part == "..")
    };
    url.strip_prefix(beginning)
        .is_some_and(|rest| !leads_up(rest))
}

/// Whether the text begins with the name of a web server.
pub(super) fn is_beginning(url: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    // Without the slash a host could go on: https://models.example.attacker.example/.
    let names_a_host = host.is_some_and(|rest| rest.find('/').is_some_and(|end| end > 0));
    names_a_host && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Checks the beginnings of URLs that are allowed.
pub fn validate(urls: &[String]) -> Result<(), Invalid> {
    for url in urls {
        if !is_beginning(url) {
            let reason =
                format!("{url:?} is not https://HOST/ or http://HOST/, with more if you like");
            return Err(Invalid::new("update.urls", reason));
        }
    }
    Ok(())
}

/// A client that follows no redirection, and trusts these authorities (PEM), or the system's if the path is empty.
pub(super) fn client(ca_file: &Path) -> Result<ureq::Agent, WebError> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(authorities(ca_file)?)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    Ok(ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(ANSWER_TIMEOUT))
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("ternwatchd/", env!("CARGO_PKG_VERSION")))
        .build()
        .into())
}

/// Those of the file, or those whom the system trusts.
fn authorities(ca_file: &Path) -> Result<Vec<Certificate<'static>>, WebError> {
    if ca_file.as_os_str().is_empty() {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("certificates of the system: {error}");
        }
        let owned = found.certs.iter();
        return Ok(owned
            .map(|der| Certificate::from_der(der).to_owned())
            .collect());
    }
    let path = || ca_file.to_owned();
    let pem = disk::read(ca_file, CA_FILE_BYTES_MAX).map_err(|source| WebError::Read {
        path: path(),
        source,
    })?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    let items = items.map_err(|source| WebError::Damaged {
        path: path(),
        source,
    })?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(WebError::NoCertificate { path: path() });
    }
    Ok(certificates)
}

/// The thread: one errand after the other until nobody wants anything any more.
fn run(
    client: &ureq::Agent,
    authorization: Option<&(String, Authorization)>,
    errands: &Receiver<Errand>,
    inbox: &SyncSender<Input>,
) {
    let mut complaint = String::new();
    for errand in errands {
        // The token is the hawkBit server's: nobody else gets it.
        let shown = authorization
            .filter(|(beginning, _)| errand.is_whole && is_below(&errand.url, beginning));
        let shown = shown.map(|(_, authorization)| authorization);
        let mut runs = consecutive(&errand.chunks);
        // The rest is asked for again.
        let _ = runs.try_for_each(|run| {
            let bring = |index, bytes| {
                let _ = inbox.send(Input::Chunk {
                    origin: Origin::Web,
                    sha256: errand.sha256,
                    index,
                    bytes,
                });
            };
            let fetched = fetch(client, shown, &errand.url, run, bring);
            match &fetched {
                Ok(()) => complaint.clear(),
                Err(error) => {
                    // A query may be a signature that lets its owner in.
                    let address = errand.url.split('?').next().unwrap_or_default();
                    let text = format!("{address}: {error}");
                    if text != complaint {
                        log::warn!("the model cannot be fetched from {text}");
                        complaint = text;
                    }
                }
            }
            fetched
        });
        let sha256 = errand.sha256;
        if inbox.send(Input::Returned { sha256 }).is_err() {
            return;
        }
    }
}

/// Chunks whose places touch can come in one answer.
fn consecutive(chunks: &[(usize, Range<usize>)]) -> impl Iterator<Item = &[(usize, Range<usize>)]> {
    chunks.chunk_by(|(_, before), (_, after)| before.end == after.start)
}

/// Fetches chunks that follow each other, and brings each as soon as it is here: on a slow line, or one that is cut, those that
/// came are not lost with the rest.
fn fetch(
    client: &ureq::Agent,
    authorization: Option<&Authorization>,
    url: &str,
    run: &[(usize, Range<usize>)],
    mut bring: impl FnMut(usize, Vec<u8>),
) -> Result<(), FetchError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let mut body = open(client, authorization, url, first.1.start..last.1.end)?;
    for (index, place) in run {
        let mut bytes = vec![0; place.len()];
        body.read_exact(&mut bytes)?;
        bring(*index, bytes);
    }
    Ok(())
}

/// What a server gives as this range of a file. It may be shorter or longer.
fn open(
    client: &ureq::Agent,
    authorization: Option<&Authorization>,
    url: &str,
    range: Range<usize>,
) -> Result<impl Read, FetchError> {
    let (begin, last) = (range.start, range.end.saturating_sub(1));
    let mut request = client
        .get(url)
        .config()
        .timeout_global(Some(CHUNKS_TIMEOUT))
        .timeout_resolve(Some(ANSWER_TIMEOUT))
        .timeout_connect(Some(ANSWER_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_read(Some(BYTES_TIMEOUT))
        .build()
        .header(header::RANGE, format!("bytes={begin}-{last}"));
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization.header());
    }
    let response = request.call()?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::OK => return Err(FetchError::NoRanges),
        other => return Err(FetchError::Status(other)),
    }
    let given = response.headers().get(header::CONTENT_RANGE);
    let is_right = given
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(&format!("bytes {begin}-{last}/")));
    if !is_right {
        return Err(FetchError::OtherRange);
    }
    Ok(response.into_body().into_reader())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// Answers requests with what `answer` makes of the header `Range`, one connection each.
    fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut range = String::new();
                for line in BufReader::new(&stream).lines() {
                    let line = line.expect("text");
                    if let Some(value) = line.to_lowercase().strip_prefix("range: ") {
                        range = value.into();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                // A client that has enough may have left.
                let _ = stream.write_all(&answer(&range));
            }
        });
        format!("http://{address}/model.tern")
    }

    fn partial(content_range: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: {content_range}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    /// What comes of the bytes 3 to 6, in chunks of two bytes, and how that ends.
    fn fetched(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (Vec<u8>, Result<(), String>) {
        let url = server(answer);
        let client = client(Path::new("")).expect("the system's certificates");
        let mut came = Vec::new();
        let run = [(0, 3..5), (1, 5..7)];
        let result = fetch(&client, None, &url, &run, |_, bytes| came.extend(bytes));
        (came, result.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_range_is_fetched() {
        let answer = |range: &str| {
            assert_eq!(range, "bytes=3-6");
            partial("bytes 3-6/9", b"defg")
        };
        assert_eq!(fetched(answer), (b"defg".to_vec(), Ok(())));
    }

    #[test]
    fn what_came_before_the_line_was_cut_is_not_lost() {
        let cut = |_: &str| {
            let mut answer = partial("bytes 3-6/9", b"defg");
            answer.truncate(answer.len() - 1);
            answer
        };
        let (came, result) = fetched(cut);
        assert_eq!(came, b"de");
        assert!(result.expect_err("cut").contains("ends early"));
    }

    #[test]
    fn whatever_else_a_server_says_is_refused() {
        let refused: [(Vec<u8>, &str); 7] = [
            (partial("bytes 2-5/9", b"cdef"), "another range"),
            (partial("bytes 3-6/9", b"def"), "ends early"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndefg".to_vec(),
                "not ranges",
            ),
            (
                b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\ndefg".to_vec(),
                "another range",
            ),
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "404",
            ),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
                "302",
            ),
            (b"\0\0\0\0not http at all\r\n\r\n".to_vec(), ""),
        ];
        for (answer, named) in refused {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let (_, result) = fetched(move |_| answer.clone());
            let error = result.expect_err(&text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn more_than_was_asked_for_is_not_read() {
        let endless = |_: &str| partial("bytes 3-6/9", &[b'd'; 1 << 20]);
        assert_eq!(fetched(endless), (b"dddd".to_vec(), Ok(())));
    }

    #[test]
    fn chunks_that_touch_come_together() {
        let chunks = [(0, 0..10), (1, 10..20), (4, 40..50), (5, 50..53)];
        let runs: Vec<usize> = consecutive(&chunks).map(<[_]>::len).collect();
        assert_eq!(runs, [2, 2]);
    }

    #[test]
    fn nothing_above_or_beside_a_beginning_is_below_it() {
        let below = |rest: &str| is_below(&format!("https://h/{rest}"), "https://h/models/");
        for good in ["models/", "models/a..b/3.tern", "models/3.tern?c=../x"] {
            assert!(below(good), "{good}");
        }
        for bad in [
            "model",
            "other/3.tern",
            "models/../3.tern",
            "models/a/%2E%2e/../x",
            "models/..",
            "models/%2e./3.tern",
        ] {
            assert!(!below(bad), "{bad}");
        }
    }

    #[test]
    fn only_beginnings_that_name_a_host_are_allowed() {
        let check = |url: &str| validate(&[url.to_owned()]);
        for good in ["https://models.example/", "http://10.0.0.7:8080/tern/"] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in [
            "",
            "https://",
            "https:///x",
            "https://models.example",
            "ftp://a/",
            "https://a b/",
        ] {
            assert_eq!(check(bad).expect_err(bad).key, "update.urls");
        }
    }
}
