//! Models by hawkBit: a real daemon, real bundles, and a server that speaks the Direct Device Integration API.

use crate::bench::Bench;
use crate::push::{Pusher, bundle, bundle_signed_by, long_bundle};
use crate::update::{bench, ending};
use crate::{document, expect_state};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use system_tests::broker::{Broker, Heard, Subscriber, wait_for};
use ternwatch_bundle::{SecretKey, hex};

const TOKEN: &str = "hunter2-of-pi";
const CHUNKS: usize = 24;

/// What the server has for the device.
#[derive(Default)]
struct Desk {
    /// The action's id; none: nothing to do.
    action: Option<u32>,
    is_cancelled: bool,
    download: &'static str,
    update: &'static str,
    version: u64,
    file: Vec<u8>,
    artifacts: usize,
    /// Ranges that it still gives.
    budget: usize,
    served: Vec<Range<usize>>,
    /// Whether it answers feedback with an error.
    is_deaf: bool,
    wants_attributes: bool,
    attributes: Option<Value>,
    /// Resource and document.
    feedback: Vec<(String, Value)>,
    refused: usize,
}

struct Server {
    url: String,
    desk: Arc<Mutex<Desk>>,
}

struct Request {
    line: String,
    range: Option<Range<usize>>,
    token: String,
    body: Vec<u8>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (shared, base) = (desk.clone(), url.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (desk, base) = (shared.clone(), base.clone());
                let stream = stream.expect("a connection");
                // A client that leaves ends the connection.
                thread::spawn(move || serve(stream, &base, &desk));
            }
        });
        Self { url, desk }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no panic")
    }

    /// Assigns a model to the device, to be installed at once.
    fn assign(&self, action: u32, version: u64, file: &[u8]) {
        let mut desk = self.desk();
        (desk.action, desk.is_cancelled) = (Some(action), false);
        (desk.download, desk.update) = ("forced", "forced");
        (desk.version, desk.file, desk.artifacts) = (version, file.to_vec(), 1);
        desk.budget = usize::MAX;
    }

    /// Waits for feedback of this kind on the resource of this action.
    fn expect(&self, resource: &str, execution: &str, finished: &str) -> Value {
        wait_for(&format!("{resource} {execution} {finished}"), || {
            let desk = self.desk();
            let mut told = desk.feedback.iter().rev();
            let is_it = |(at, document): &&(String, Value)| {
                let status = &document["status"];
                at == resource
                    && status["execution"] == execution
                    && status["result"]["finished"] == finished
            };
            told.find(is_it)
                .map(|(_, document)| document["status"].clone())
        })
    }

    fn bytes_served(&self) -> usize {
        self.desk().served.iter().map(Range::len).sum()
    }

    /// A daemon that asks this server.
    fn bench(&self, port: u16) -> Bench {
        let mut bench = bench(port);
        fs::write(bench.path("token"), format!("{TOKEN}\n")).expect("written");
        let token = bench.path("token");
        bench.set("UPDATE__HAWKBIT__URL", &self.url);
        bench.set(
            "UPDATE__HAWKBIT__TOKEN_FILE",
            token.to_str().expect("UTF-8"),
        );
        bench.set("UPDATE__HAWKBIT__POLL_S_MIN", "1");
        bench.set("UPDATE__HAWKBIT__POLL_S_MAX", "2");
        bench
    }
}

fn serve(stream: TcpStream, base: &str, desk: &Mutex<Desk>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream)? {
        let mut desk = desk.lock().expect("no panic");
        let (status, head, body) = answer(&mut desk, base, request);
        let stream = stream.get_mut();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\n{head}Content-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(&body)?;
    }
    Ok(())
}

fn request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut request = Request {
        line: String::new(),
        range: None,
        token: String::new(),
        body: Vec::new(),
    };
    let mut length = 0;
    if stream.read_line(&mut request.line)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "range" => {
                let value = value.strip_prefix("bytes=").expect("a range");
                let (begin, last) = value.split_once('-').expect("a range");
                let number = |text: &str| text.parse::<usize>().expect("a number");
                request.range = Some(number(begin)..number(last) + 1);
            }
            "authorization" => request.token = value.into(),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

/// Status, further header lines, body.
fn answer(desk: &mut Desk, base: &str, request: Request) -> (u16, String, Vec<u8>) {
    let none = |status| (status, String::new(), Vec::new());
    if request.token != format!("TargetToken {TOKEN}") {
        desk.refused += 1;
        return none(401);
    }
    let mut words = request.line.split_whitespace();
    let (method, path) = (words.next().expect("one"), words.next().expect("one"));
    let home = "/DEFAULT/controller/v1/pi";
    let below = path.strip_prefix(home).expect("this device's");
    let body = || serde_json::from_slice::<Value>(&request.body).expect("JSON");
    let json = |document: Value| (200, String::new(), document.to_string().into_bytes());
    match (method, below) {
        ("GET", "") => json(poll(desk, &format!("{base}{home}"))),
        ("PUT", "/configData") => {
            (desk.attributes, desk.wants_attributes) = (Some(body()), false);
            none(200)
        }
        ("GET", "/file/model.tern") => {
            let range = request.range.expect("files are fetched by ranges");
            if desk.served.len() >= desk.budget {
                return none(503);
            }
            desk.served.push(range.clone());
            let head = format!(
                "Content-Range: bytes {}-{}/{}\r\n",
                range.start,
                range.end - 1,
                desk.file.len()
            );
            (206, head, desk.file[range].to_vec())
        }
        ("POST", _) if desk.is_deaf => none(503),
        ("POST", resource) => {
            let resource = resource.strip_suffix("/feedback").expect("feedback");
            let document = body();
            let execution = document["status"]["execution"].clone();
            desk.feedback.push((resource.into(), document));
            match (execution.as_str().expect("a text"), desk.is_cancelled) {
                ("closed", _) => desk.action = None,
                ("rejected", true) => desk.is_cancelled = false,
                _ => {}
            }
            none(200)
        }
        ("GET", resource) if resource.starts_with("/cancelAction/") => {
            let id = desk.action.expect("one").to_string();
            json(json!({ "id": id, "cancelAction": { "stopId": id } }))
        }
        ("GET", resource) if resource.starts_with("/deploymentBase/") => {
            json(deployment(desk, &format!("{base}{home}")))
        }
        other => panic!("nobody asks for {other:?}"),
    }
}

fn poll(desk: &Desk, home: &str) -> Value {
    let mut links = json!({});
    if desk.wants_attributes {
        links["configData"] = json!({ "href": format!("{home}/configData") });
    }
    if let Some(action) = desk.action {
        let (name, resource) = if desk.is_cancelled {
            ("cancelAction", format!("{home}/cancelAction/{action}"))
        } else {
            let resource = format!("{home}/deploymentBase/{action}?c=-12345");
            ("deploymentBase", resource)
        };
        links[name] = json!({ "href": resource });
    }
    json!({ "config": { "polling": { "sleep": "00:00:01" } }, "_links": links })
}

fn deployment(desk: &Desk, home: &str) -> Value {
    let artifact = json!({
        "filename": "model.tern",
        "hashes": { "sha1": "0", "md5": "0", "sha256": hex::encode(&Sha256::digest(&desk.file)) },
        "size": desk.file.len(),
        "_links": { "download-http": { "href": format!("{home}/file/model.tern") } },
    });
    json!({
        "id": desk.action.expect("one").to_string(),
        "deployment": {
            "download": desk.download,
            "update": desk.update,
            "chunks": [{
                "part": "bApp",
                "name": "small-test",
                "version": desk.version.to_string(),
                "artifacts": vec![artifact; desk.artifacts],
            }],
        },
    })
}

fn model_state(heard: &Heard) -> Option<Value> {
    heard.document("site/pi/model")
}

#[test]
fn a_deployment_is_installed_and_the_server_is_told_of_it() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let bench = server.bench(broker.port());
    let file = long_bundle(2, CHUNKS);
    server.desk().wants_attributes = true;
    server.assign(17, 2, &file);
    let daemon = bench.run();
    let (state, document) = ending(&mut subscriber, "hawkbit.17");
    assert_eq!(state, "committed", "{document}");
    server.expect("/deploymentBase/17", "closed", "success");
    // A slow machine may ask twice.
    assert!(server.bytes_served() >= file.len());
    let desk = server.desk();
    let attributes = &desk.attributes.as_ref().expect("they were asked for")["data"];
    assert_eq!(attributes["model_version"], "1", "{attributes}");
    assert_eq!(attributes["architecture"], std::env::consts::ARCH);
    let executions: Vec<&str> = desk
        .feedback
        .iter()
        .map(|(_, told)| told["status"]["execution"].as_str().expect("a text"))
        .collect();
    assert!(executions.contains(&"proceeding"), "{executions:?}");
    assert!(
        executions.len() <= 12,
        "not every chunk is told: {executions:?}"
    );
    drop(desk);
    assert!(!daemon.terminate().contains(TOKEN));
}

#[test]
fn what_must_not_run_is_refused_and_the_server_learns_why() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let daemon = server.bench(broker.port()).run();
    let stranger = bundle_signed_by(&SecretKey::from_bytes(&[8; 32]), 5, |_| {});
    let wrong_answer = bundle(6, |manifest| {
        manifest.golden[0].layers[0] = "0123456789abcdef".into();
    });
    let cases = [
        (1, 5, stranger, "bad_signature"),
        (2, 0, bundle(0, |_| {}), "version_too_old"),
        // The module lies: what was signed decides.
        (3, 9, bundle(0, |_| {}), "version_too_old"),
        (4, 6, wrong_answer, "golden_mismatch"),
    ];
    for (action, version, file, reason) in cases {
        server.assign(action, version, &file);
        let resource = format!("/deploymentBase/{action}");
        let told = server.expect(&resource, "closed", "failure");
        assert_eq!(told["details"][0], reason, "{told}");
    }
    server.assign(5, 7, &bundle(7, |_| {}));
    server.desk().artifacts = 2;
    let told = server.expect("/deploymentBase/5", "closed", "failure");
    let why = told["details"][0].as_str().expect("a text");
    assert!(
        why.contains("offer_invalid") && why.contains("one artifact"),
        "{why}"
    );
    server.assign(6, 7, &bundle(7, |_| {}));
    server.expect("/deploymentBase/6", "closed", "success");
    assert_eq!(ending(&mut subscriber, "hawkbit.6").0, "committed");
    daemon.terminate();
}

#[test]
fn a_download_goes_on_after_a_kill_and_an_end_that_was_not_heard_is_told_again() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let bench = server.bench(broker.port());
    let file = long_bundle(2, CHUNKS);
    server.assign(17, 2, &file);
    server.desk().budget = 4;
    let daemon = bench.run();
    wait_for("the first ranges", || {
        (server.desk().served.len() == 4).then_some(())
    });
    daemon.signal(Signal::KILL);
    daemon.wait();

    server.desk().budget = usize::MAX;
    let daemon = bench.run();
    subscriber.expect("the trial", |heard| {
        (model_state(heard)?["state"] == "trial").then_some(())
    });
    server.desk().is_deaf = true;
    assert_eq!(ending(&mut subscriber, "hawkbit.17").0, "committed");
    let served = server.bytes_served();
    assert!(
        (file.len()..=file.len() + (8 << 15)).contains(&served),
        "{served} of {}",
        file.len()
    );
    daemon.signal(Signal::KILL);
    daemon.wait();

    server.desk().is_deaf = false;
    let daemon = bench.run();
    server.expect("/deploymentBase/17", "closed", "success");
    assert_eq!(server.bytes_served(), served, "nothing is fetched again");
    daemon.terminate();
}

#[test]
fn a_deployment_is_taken_back_until_its_model_is_stored() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let mut bench = server.bench(broker.port());
    // Never over by itself.
    bench.set("UPDATE__TRIAL_S", "3600");
    server.assign(17, 2, &long_bundle(2, CHUNKS));
    server.desk().budget = 2;
    let daemon = bench.run();
    wait_for("the first ranges", || {
        (server.desk().served.len() == 2).then_some(())
    });
    server.desk().is_cancelled = true;
    server.expect("/cancelAction/17", "closed", "success");
    let (state, document) = ending(&mut subscriber, "hawkbit.17");
    assert_eq!(
        (state.as_str(), &document["reason"]),
        ("rejected", &"cancelled".into())
    );

    server.assign(18, 3, &bundle(3, |_| {}));
    subscriber.expect("the trial", |heard| {
        (model_state(heard)?["state"] == "trial").then_some(())
    });
    server.desk().is_cancelled = true;
    server.expect("/cancelAction/18", "rejected", "none");
    daemon.terminate();
}

#[test]
fn an_attempt_waits_for_the_owner_and_force_does_not() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let mut bench = server.bench(broker.port());
    bench.set("UPDATE__AUTOMATIC", "false");
    server.assign(17, 2, &bundle(2, |_| {}));
    server.desk().update = "attempt";
    let daemon = bench.run();
    server.expect("/deploymentBase/17", "scheduled", "none");
    let (code, said) = bench.model(&["approve"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ending(&mut subscriber, "hawkbit.17").0, "committed");
    server.expect("/deploymentBase/17", "closed", "success");

    server.assign(18, 3, &bundle(3, |_| {}));
    server.desk().update = "attempt";
    server.expect("/deploymentBase/18", "scheduled", "none");
    // Its time has come.
    server.desk().update = "forced";
    server.expect("/deploymentBase/18", "closed", "success");
    daemon.terminate();
}

#[test]
fn outside_the_maintenance_window_it_is_fetched_and_not_installed() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let bench = server.bench(broker.port());
    let file = bundle(2, |_| {});
    server.assign(17, 2, &file);
    server.desk().update = "skip";
    let daemon = bench.run();
    server.expect("/deploymentBase/17", "downloaded", "none");
    let state = subscriber.expect("all chunks", |heard| {
        model_state(heard).filter(|state| state["state"] == "downloading")
    });
    assert_eq!(state["running"]["version"], 1);
    server.desk().update = "forced";
    server.expect("/deploymentBase/17", "closed", "success");
    assert_eq!(server.bytes_served(), file.len(), "once");
    daemon.terminate();
}

#[test]
fn offers_over_the_broker_use_up_none_of_the_servers_downloads() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let mut bench = server.bench(broker.port());
    bench.set("UPDATE__DOWNLOADS_PER_HOUR_MAX", "1");
    let daemon = bench.run();
    // Of two retained offers it would hear the later one only.
    expect_state(&mut subscriber, "online");
    let pusher = Pusher::connect(broker.port());
    pusher.set_budget(0);
    for (job, version) in [("one", 5), ("two", 6)] {
        pusher.offer(job, version, &bundle(version, |_| {}));
    }
    wait_for("the bound of offers", || {
        let log = daemon.log();
        log.contains("too many downloads began").then_some(())
    });
    server.assign(17, 2, &bundle(2, |_| {}));
    server.expect("/deploymentBase/17", "closed", "success");
    assert_eq!(ending(&mut subscriber, "hawkbit.17").0, "committed");
    // Its own bound makes a deployment wait; it does not fail, which would make a rollout stop.
    server.assign(18, 3, &bundle(3, |_| {}));
    wait_for("the bound of deployments", || {
        let log = daemon.log();
        log.contains("a deployment waits").then_some(())
    });
    let log = daemon.terminate();
    assert_eq!(log.matches("a deployment waits").count(), 1, "{log}");
    let desk = server.desk();
    let told = desk.feedback.iter();
    let failed = told.filter(|(_, told)| told["status"]["result"]["finished"] == "failure");
    assert_eq!(failed.count(), 0);
}

#[test]
fn a_wrong_token_and_a_server_that_is_away_cost_a_line_in_the_log() {
    let broker = Broker::start();
    let mut subscriber = Subscriber::connect(broker.port(), "test");
    let server = Server::start();
    let mut bench = server.bench(broker.port());
    fs::write(bench.path("token"), "a-wrong-one").expect("written");
    let daemon = bench.run();
    wait_for("three refusals", || {
        (server.desk().refused >= 3).then_some(())
    });
    subscriber.expect("frames", document);
    let log = daemon.terminate();
    assert_eq!(
        log.matches("does not accept this device's token").count(),
        1,
        "{log}"
    );
    assert!(!log.contains("a-wrong-one"), "{log}");

    // Nobody listens there. What was published before is not to be mistaken for what comes now.
    let mut subscriber = Subscriber::connect(broker.port(), "later");
    bench.set("UPDATE__HAWKBIT__URL", "http://127.0.0.1:1");
    let daemon = bench.run();
    wait_for("the complaint", || {
        daemon
            .log()
            .contains("hawkBit at http://127.0.0.1:1")
            .then_some(())
    });
    let frames = |heard: &Heard| (document(heard)?["sequence"].as_u64()? >= 50).then_some(());
    subscriber.expect("frames of five seconds", frames);
    let log = daemon.terminate();
    let told = log.matches("hawkBit at http://127.0.0.1:1").count();
    assert_eq!(told, 1, "{log}");
}
