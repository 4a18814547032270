//! Models by HTTPS: a real daemon, and a web server that is obedient, choosy, dead or a stranger.

use crate::bench::Bench;
use crate::push::{Pusher, long_bundle};
use crate::update::{bench, ending};
use crate::{certificates, expect_state};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use system_tests::broker::{Broker, Subscriber, wait_for};

const CHUNKS: usize = 24;

/// A web server with one file, which understands ranges.
struct Server {
    url: String,
    served: Arc<Mutex<Vec<Range<usize>>>>,
}

impl Server {
    /// Over TLS with the certificate that [`certificates`] made in `folder`; answers `budget` requests, then none.
    fn start(folder: &Path, file: &[u8], budget: usize) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("broker.pem"));
        let key = PrivateKeyDer::from_pem_file(folder.join("broker.key"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's own")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"));
        let config = Arc::new(config.expect("they belong together"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let served = Arc::new(Mutex::new(Vec::new()));
        let (file, record) = (Arc::new(file.to_vec()), served.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, file, record) = (config.clone(), file.clone(), record.clone());
                let stream = stream.expect("a connection");
                // A client that leaves, or that does not trust us, ends the connection.
                thread::spawn(move || serve(stream, config, &file, &record, budget));
            }
        });
        let url = format!("https://{address}/models/new.tern");
        Self { url, served }
    }

    fn served(&self) -> Vec<Range<usize>> {
        self.served.lock().expect("no panic").clone()
    }

    fn bytes_served(&self) -> usize {
        self.served().iter().map(Range::len).sum()
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    file: &[u8],
    record: &Mutex<Vec<Range<usize>>>,
    budget: usize,
) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(range) = request(&mut stream)? {
        let mut record = record.lock().expect("no panic");
        let stream = stream.get_mut();
        if record.len() >= budget {
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        record.push(range.clone());
        let (last, whole, length) = (range.end - 1, file.len(), range.len());
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{last}/{whole}\r\nContent-Length: {length}\r\n\r\n",
            range.start
        )?;
        stream.write_all(&file[range])?;
    }
    Ok(())
}

/// The range of the next request; none at the end of the connection.
fn request(stream: &mut impl BufRead) -> io::Result<Option<Range<usize>>> {
    let mut range = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(value) = line.to_lowercase().trim().strip_prefix("range: bytes=") {
            let (begin, last) = value.split_once('-').expect("a range");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            range = Some(number(begin)..number(last) + 1);
        }
        if line.trim().is_empty() {
            return Ok(Some(range.expect("every request is for a range")));
        }
    }
}

fn allow(bench: &mut Bench, url: &str, authority: &str) {
    let beginning = url.trim_end_matches("new.tern");
    let authority = bench.path(authority);
    bench.write_config(&format!(
        "[update]\nurls = [{beginning:?}]\nca_file = {authority:?}\n"
    ));
}

#[test]
fn a_model_is_fetched_by_https_and_goes_on_after_a_killed_daemon() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    certificates(&bench.path(""));
    let file = long_bundle(2, CHUNKS);
    let choosy = Server::start(&bench.path(""), &file, 4);
    allow(&mut bench, &choosy.url, "authority.pem");
    let daemon = bench.run();
    let pusher = Pusher::connect(broker.port());
    pusher.set_budget(0);
    pusher.offer_at("job-1", 2, &file, Some(&choosy.url));
    wait_for("the first ranges", || {
        (choosy.served().len() == 4).then_some(())
    });
    daemon.signal(Signal::KILL);
    daemon.wait();

    // Another server takes its place: what is here already is not asked for again, but for what was not safe yet.
    let obedient = Server::start(&bench.path(""), &file, usize::MAX);
    allow(&mut bench, &obedient.url, "authority.pem");
    let daemon = bench.run();
    pusher.offer_at("job-1", 2, &file, Some(&obedient.url));
    let (state, document) = ending(&mut subscriber, "job-1");
    assert_eq!(state, "committed", "{document}");
    let both = choosy.bytes_served() + obedient.bytes_served();
    assert!(both >= file.len(), "{both} of {}", file.len());
    assert!(both <= file.len() + (8 << 15), "{both} of {}", file.len());
    assert_eq!(pusher.answered(), 0, "the broker carried nothing");
    daemon.terminate();
}

/// A model that is on a web server, too, comes over the broker: gives the server and the daemon's log. `allowed` is what the
/// settings allow instead of the server's URL.
fn fetched_from_the_broker(allowed: Option<&str>, authority: &str) -> (Server, String) {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let mut bench = bench(broker.port());
    certificates(&bench.path(""));
    let file = long_bundle(2, 3);
    let server = Server::start(&bench.path(""), &file, usize::MAX);
    allow(&mut bench, allowed.unwrap_or(&server.url), authority);
    let daemon = bench.run();
    expect_state(&mut subscriber, "online");
    let pusher = Pusher::connect(broker.port());
    pusher.offer_at("job-1", 2, &file, Some(&server.url));
    assert_eq!(ending(&mut subscriber, "job-1").0, "committed");
    assert_eq!(pusher.answered(), 3);
    (server, daemon.terminate())
}

#[test]
fn a_url_that_is_not_allowed_is_not_visited() {
    let elsewhere = "https://elsewhere.example/new.tern";
    let (server, _) = fetched_from_the_broker(Some(elsewhere), "authority.pem");
    assert_eq!(server.served(), []);
}

#[test]
fn a_server_that_is_a_stranger_gets_no_trust_and_the_broker_is_asked_instead() {
    let (server, log) = fetched_from_the_broker(None, "stranger.pem");
    assert_eq!(server.served(), []);
    assert!(
        log.contains("cannot be fetched") && log.contains("certificate"),
        "{log}"
    );
}
