//! The broker as deploy/mosquitto/ configures it: certificates on both sides, and rules who may do what.

use crate::bench::Bench;
use crate::push::bundle;
use crate::send::push;
use crate::{document, expect_state, long_run, state};
use rumqttc::mqttbytes::v5::PublishProperties;
use rumqttc::{
    Client, ConnectionError, Event, Incoming, MqttOptions, PubAckReason, PublishOptions, Transport,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use system_tests::broker::{Broker, Subscriber, free_port, wait_for};

/// What the script does not make: certificates that must not work.
const BAD_CERTIFICATES: &str = r#"
set -e
certificates=$0
DAYS=2 $certificates others authority
DAYS=2 $certificates others client pi
DAYS=3 $certificates . client soon
cat >ca.cnf <<END
[ca]
default_ca = it
[it]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
END
: >index.txt
echo 01 >serial
dated() {
    openssl req -new -config ca.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj /CN=pi -keyout "$1.key" -out "$1.csr"
    openssl ca -config ca.cnf -batch -notext -cert authority.pem -keyfile authority.key \
        -startdate "$2" -enddate "$3" -extensions extensions -in "$1.csr" -out "$1.pem"
}
dated expired 20200101000000Z 20210101000000Z
dated early 20980101000000Z 20990101000000Z
openssl x509 -req -in early.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -out version1.pem
openssl pkcs8 -topk8 -in pi.key -passout pass:x -out locked.key
sed 's/^[A-Za-z0-9+].*/!/' pi.pem >damaged.pem
printf 'nothing\n' >text.pem
"#;

/// A broker with the settings that the repository offers, and another listener where everything is heard.
struct Site {
    broker: Broker,
    /// Of the listener that asks for certificates.
    port: u16,
    folder: tempfile::TempDir,
}

fn repository(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("tests/ lies in the workspace").join(path)
}

fn run(command: &mut Command) {
    let output = command.output().expect("sh runs");
    assert!(
        output.status.success(),
        "this test needs `apt install openssl`: {output:?}"
    );
}

impl Site {
    fn start() -> Self {
        Self::start_with(|settings, _| settings)
    }

    /// With the settings changed by `change`, which is told the folder of the certificates.
    fn start_with(change: impl FnOnce(String, &str) -> String) -> Self {
        Self::start_by(|rules| rules, change)
    }

    /// With the rules changed, too.
    fn start_by(
        rules: impl FnOnce(String) -> String,
        change: impl FnOnce(String, &str) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().to_str().expect("UTF-8");
        let script = repository("deploy/mosquitto/certificates.sh");
        for arguments in [
            &["authority"][..],
            &["broker", "127.0.0.1", "broker.lan"],
            &[
                "client",
                "pi",
                "gate",
                "dashboard",
                "releases",
                "homeassistant",
                "site-1",
            ],
        ] {
            let mut command = Command::new(&script);
            run(command.arg(path).args(arguments));
        }
        let mut bad = Command::new("sh");
        bad.args(["-c", BAD_CERTIFICATES]).arg(&script);
        run(bad.current_dir(path));
        let read = |name: &str| {
            fs::read_to_string(repository("deploy/mosquitto").join(name)).expect("readable")
        };
        // The tests' daemons have another prefix.
        let rules = rules(read("ternwatch.acl")).replace(" ternwatch/", " site/");
        fs::write(folder.path().join("ternwatch.acl"), rules).expect("written");
        let port = free_port();
        // The listener that stands before is everybody's; mosquitto started by root would drop the rights to read the key.
        let listeners = format!("user root\nallow_anonymous true\nlistener {port} 127.0.0.1");
        let settings = read("ternwatch.conf")
            .replace("/etc/mosquitto/ternwatch", path)
            .replace("listener 8883", &listeners);
        assert!(settings.contains(&format!("acl_file {path}/ternwatch.acl")));
        Self {
            broker: Broker::start_with(&change(settings, path)),
            port,
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").into()
    }

    /// A daemon's settings for it, with its certificate.
    fn settle(&self, bench: &mut Bench) {
        for (key, value) in [
            ("MQTT__PORT", self.port.to_string()),
            ("MQTT__TLS", "true".into()),
            ("MQTT__CA_FILE", self.path("authority.pem")),
            ("MQTT__CLIENT_CERTIFICATE", self.path("pi.pem")),
            ("MQTT__CLIENT_KEY", self.path("pi.key")),
        ] {
            bench.set(key, &value);
        }
    }

    /// Somebody with the certificate of this name.
    fn options(&self, name: &str, client_id: &str) -> MqttOptions {
        let read = |name: &str| fs::read(self.path(name)).expect("readable");
        let identity = (read(&format!("{name}.pem")), read(&format!("{name}.key")));
        let mut options = MqttOptions::new(client_id, ("127.0.0.1", self.port));
        options.set_transport(Transport::tls(read("authority.pem"), Some(identity), None));
        options
    }

    /// Publishes as whom the certificate of this name is for: whether the broker took it.
    fn publish(&self, name: &str, client_id: &str, topic: &str) -> bool {
        let options = self.options(name, client_id);
        Self::say(
            name,
            options,
            topic,
            "test",
            PublishOptions::at_least_once(),
        )
    }

    /// The same with this payload, as the account that is the client's name.
    fn ask(&self, name: &str, topic: &str, payload: &str, answer_at: &str) -> bool {
        let properties = PublishProperties {
            response_topic: Some(answer_at.into()),
            ..PublishProperties::default()
        };
        let how = PublishOptions::at_least_once().properties(properties);
        Self::say(name, self.options(name, name), topic, payload, how)
    }

    fn say(
        name: &str,
        options: MqttOptions,
        topic: &str,
        payload: &str,
        how: PublishOptions,
    ) -> bool {
        let (client, mut connection) = Client::builder(options).capacity(4).build();
        client.publish(topic, payload, how).expect("a valid topic");
        let reason = connection.iter().find_map(|event| match event {
            Ok(Event::Incoming(Incoming::PubAck(answer))) => Some(answer.reason),
            Ok(_) => None,
            Err(error) => panic!("{topic} as {name}: {error}"),
        });
        client.disconnect().expect("it is connected");
        // Until the connection has ended.
        connection.iter().find(Result::is_err);
        match reason.expect("the connection goes on until its last client leaves") {
            PubAckReason::NotAuthorized => false,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => true,
            reason => panic!("{topic} as {name}: {reason:?}"),
        }
    }
}

/// The log of a daemon that cannot connect, once it says why.
fn says(bench: &Bench, words: &str) {
    let daemon = bench.run();
    wait_for(words, || {
        let log = daemon.log();
        assert!(!log.contains("connected to the broker"), "{words}: {log}");
        log.contains(words).then_some(())
    });
    daemon.terminate();
}

#[test]
fn with_its_certificate_a_device_publishes_and_a_dashboard_reads() {
    let site = Site::start();
    let mut bench = long_run(1);
    site.settle(&mut bench);
    // The key as systemd hands it over.
    bench.set("MQTT__CLIENT_KEY", "pi.key");
    for protocol in ["5", "3.1.1"] {
        bench.set("MQTT__PROTOCOL", protocol);
        let options = site.options("dashboard", "dashboard");
        let mut dashboard = Subscriber::with_options(options, "dashboard");
        let daemon = bench.run_with(|command| {
            command.env("CREDENTIALS_DIRECTORY", site.folder.path());
        });
        expect_state(&mut dashboard, "online");
        dashboard.expect("a document", document);
        let log = daemon.terminate();
        assert!(!log.contains("certificate has"), "{log}");
        expect_state(&mut dashboard, "offline");
    }
}

#[test]
fn a_stranger_is_refused_and_told_why() {
    let site = Site::start();
    let mut everything = Subscriber::connect(site.broker.port(), "everything");
    let mut bench = long_run(1);
    site.settle(&mut bench);
    bench.set("MQTT__CLIENT_CERTIFICATE", &site.path("others/pi.pem"));
    bench.set("MQTT__CLIENT_KEY", &site.path("others/pi.key"));
    says(
        &bench,
        "it does not know the authority that signed `mqtt.client_certificate`",
    );
    bench.set("MQTT__CLIENT_CERTIFICATE", "");
    bench.set("MQTT__CLIENT_KEY", "");
    says(
        &bench,
        "it demands a certificate of this device (`mqtt.client_certificate`)",
    );
    // A certificate of the broker's kind lets nobody in as a client.
    bench.set("MQTT__CLIENT_CERTIFICATE", &site.path("broker.pem"));
    bench.set("MQTT__CLIENT_KEY", &site.path("broker.key"));
    says(&bench, "its extended key usage lacks clientAuth");
    says(&bench, "it does not accept `mqtt.client_certificate`");
    bench.set("MQTT__CLIENT_CERTIFICATE", &site.path("expired.pem"));
    bench.set("MQTT__CLIENT_KEY", &site.path("expired.key"));
    says(&bench, "expired.pem has expired on 2021-01-01T00:00:00Z");
    says(&bench, "it says that `mqtt.client_certificate` has expired");

    // Nothing of all that came through: the first that does is what comes now.
    assert!(site.publish("gate", "gate", "site/gate/state"));
    everything.expect("the first message", |heard| {
        assert_eq!(heard.topic, "site/gate/state");
        Some(())
    });
}

#[test]
fn a_broker_that_is_not_the_one_is_named() {
    let site = Site::start();
    let mut bench = long_run(1);
    site.settle(&mut bench);
    bench.set("MQTT__CA_FILE", &site.path("others/authority.pem"));
    let unknown = format!(
        "is signed by no authority of {}",
        site.path("others/authority.pem")
    );
    says(&bench, &unknown);
    site.settle(&mut bench);
    bench.set("MQTT__HOST", "localhost");
    says(
        &bench,
        "the broker's certificate is for 127.0.0.1, broker.lan, and not for \"localhost\" (`mqtt.host`)",
    );
    bench.set("MQTT__HOST", "127.0.0.1");
    bench.set("MQTT__PORT", &site.broker.port().to_string());
    says(&bench, "it does not encrypt the connection: `mqtt.port`");
    for (name, words) in [
        ("expired", "has expired on 2021-01-01T00:00:00Z"),
        ("early", "is not valid before 2098-01-01T00:00:00Z"),
    ] {
        let site = Site::start_with(|settings, folder| {
            let ours = |of: &str| format!("{folder}/broker.{of}");
            let theirs = |of: &str| format!("{folder}/{name}.{of}");
            let settings = settings.replace(&ours("pem"), &theirs("pem"));
            settings.replace(&ours("key"), &theirs("key"))
        });
        site.settle(&mut bench);
        says(&bench, &format!("the broker's certificate {words}"));
    }
}

#[test]
fn a_wrong_file_is_named_and_ends_the_program() {
    let site = Site::start();
    let mut bench = long_run(1);
    for (certificate, key, words) in [
        (
            "gone.pem",
            "pi.key",
            "`mqtt.client_certificate`: cannot read",
        ),
        ("pi.pem", "gone.key", "`mqtt.client_key`: cannot read"),
        (
            "text.pem",
            "pi.key",
            "text.pem has no certificate in PEM form",
        ),
        ("damaged.pem", "pi.key", "damaged.pem is damaged"),
        ("pi.key", "pi.key", "pi.key has no certificate in PEM form"),
        ("pi.pem", "pi.pem", "pi.pem has no private key in PEM form"),
        (
            "pi.pem",
            "locked.key",
            "locked.key is locked with a passphrase",
        ),
        (
            "pi.pem",
            "gate.key",
            "gate.key does not belong to the first certificate in",
        ),
        ("version1.pem", "early.key", "X.509 version 3 is needed"),
    ] {
        site.settle(&mut bench);
        bench.set("MQTT__CLIENT_CERTIFICATE", &site.path(certificate));
        bench.set("MQTT__CLIENT_KEY", &site.path(key));
        let (status, log) = bench.run().wait();
        assert_eq!(status.code(), Some(78), "{words}: {log}");
        assert!(log.contains(words), "{words}: {log}");
    }
    site.settle(&mut bench);
    bench.set("MQTT__CLIENT_KEY", "credential");
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("`mqtt.client_key`: credential is a credential"),
        "{log}"
    );
    site.settle(&mut bench);
    bench.set("MQTT__CA_FILE", &site.path("text.pem"));
    let (status, log) = bench.run().wait();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("text.pem has no certificate in PEM form"),
        "{log}"
    );
}

#[test]
fn a_certificate_that_ends_soon_is_spoken_of_and_works() {
    let site = Site::start();
    let mut everything = Subscriber::connect(site.broker.port(), "everything");
    let mut bench = long_run(1);
    site.settle(&mut bench);
    bench.set("DEVICE__ID", "soon");
    bench.set("MQTT__CLIENT_CERTIFICATE", &site.path("soon.pem"));
    bench.set("MQTT__CLIENT_KEY", &site.path("soon.key"));
    let daemon = bench.run();
    everything.expect("its state", |heard| {
        (heard.topic == "site/soon/state" && heard.text() == "online").then_some(())
    });
    let log = daemon.terminate();
    assert!(log.contains("soon.pem expires on 20"), "{log}");
}

#[test]
fn everybody_does_what_the_rules_allow_and_nothing_else() {
    let site = Site::start();
    let mut everything = Subscriber::connect(site.broker.port(), "everything");
    let mut bench = long_run(1);
    site.settle(&mut bench);
    let daemon = bench.run();
    everything.expect("a document", document);

    for (name, topic, is_allowed) in [
        ("gate", "site/gate/state", true),
        ("gate", "site/gate/yard/events", true),
        ("gate", "site/pi/state", false),
        ("gate", "site/pi/door/events", false),
        ("gate", "site/pi/model/offer", false),
        ("gate", "site/pi/model/keyring", false),
        ("dashboard", "site/pi/door/events", false),
        ("dashboard", "site/pi/model/offer", false),
        ("releases", "site/pi/model/offer", true),
        ("releases", "site/pi/model/chunk/0/0", true),
        ("releases", "site/pi/state", false),
    ] {
        assert_eq!(
            site.publish(name, name, topic),
            is_allowed,
            "{name}: {topic}"
        );
    }
    // Nor does it hear another one's: an offer for `pi` comes to nobody but `pi`.
    let mut gate = Subscriber::with_options(site.options("gate", "gate"), "gate");
    assert!(site.publish("releases", "releases", "site/pi/model/offer"));
    assert!(site.publish("releases", "releases", "site/gate/model/offer"));
    gate.expect("its own offer", |heard| {
        assert_eq!(heard.topic, "site/gate/model/offer");
        Some(())
    });
    drop(gate);
    // Pictures are not for everybody who may hear of the rest.
    let options = site.options("dashboard", "dashboard");
    let mut dashboard = Subscriber::with_options(options, "dashboard");
    assert!(site.publish("gate", "gate", "site/gate/yard/snapshot"));
    assert!(site.publish("gate", "gate", "site/gate/yard/events"));
    dashboard.expect("what comes of the gate", |heard| {
        assert_ne!(heard.topic, "site/gate/yard/snapshot");
        (heard.topic == "site/gate/yard/events").then_some(())
    });
    drop(dashboard);
    // A client id that is somebody else's drives nobody out.
    assert!(site.publish("gate", "pi", "site/gate/state"));
    assert!(site.publish("gate", "ternwatch-pi", "site/gate/last"));
    everything.expect("the last message", |heard| {
        assert_ne!(state(heard).as_deref(), Some("offline"), "driven out");
        let forged = heard.topic.starts_with("site/pi/") && heard.text() == "test";
        assert!(
            !forged || heard.topic.starts_with("site/pi/model/"),
            "{heard:?}"
        );
        (heard.topic == "site/gate/last").then_some(())
    });
    let log = daemon.terminate();
    assert_eq!(log.matches("connected to the broker").count(), 1, "{log}");
}

/// The rules with those that are offered as comments.
fn offered(rules: String) -> String {
    let words = ["pattern", "topic", "user"].iter();
    words.fold(rules, |rules, word| {
        rules.replace(&format!("\n#{word} "), &format!("\n{word} "))
    })
}

#[test]
fn with_the_rules_for_it_home_assistant_hears_and_switches_devices_and_nobody_else_does() {
    let site = Site::start_by(offered, |settings, _| settings);
    let mut everything = Subscriber::connect(site.broker.port(), "everything");
    let options = site.options("homeassistant", "homeassistant");
    let mut home_assistant = Subscriber::with_options(options, "homeassistant");
    let mut bench = long_run(1);
    site.settle(&mut bench);
    bench.set("MQTT__COMMANDS", "true");
    bench.set("HOME_ASSISTANT__ENABLED", "true");
    let daemon = bench.run();
    let is_config = |topic: &str| topic.starts_with("homeassistant/device/ternwatch_pi_");
    for topic in [&is_config as &dyn Fn(&str) -> bool, &|topic| {
        topic == "site/pi/door/counts"
    }] {
        home_assistant.expect("what it listens to", |heard| {
            topic(&heard.topic).then_some(())
        });
    }
    // The next one takes its client id, which is the account.
    drop(home_assistant);
    everything.expect("the message", |heard| is_config(&heard.topic).then_some(()));
    assert!(site.ask(
        "homeassistant",
        "homeassistant/status",
        "online",
        "answers/none"
    ));
    everything.expect("the message again", |heard| {
        is_config(&heard.topic).then_some(())
    });

    let off = r#"{"on": false}"#;
    let command = "site/pi/door/command/detection";
    for name in ["gate", "dashboard", "releases"] {
        assert!(!site.ask(name, command, off, "answers/pi/panel"), "{name}");
    }
    assert!(!site.publish("gate", "gate", "homeassistant/status"));
    assert!(!site.publish("gate", "gate", "answers/pi/panel"));
    assert!(site.ask("homeassistant", command, off, "answers/pi/panel"));
    let (mut is_done, mut is_off) = (false, false);
    everything.expect("the answer, and detection to be off", |heard| {
        is_done |= heard
            .document("answers/pi/panel")
            .is_some_and(|answer| answer["ok"] == true);
        is_off |= heard
            .document("site/pi/door/detection")
            .is_some_and(|state| state["on"] == false);
        (is_done && is_off).then_some(())
    });
    // Whoever may see pictures does.
    let options = site.options("dashboard", "dashboard");
    let mut dashboard = Subscriber::with_options(options, "dashboard");
    assert!(site.publish("gate", "gate", "site/gate/yard/snapshot"));
    dashboard.expect("the picture", |heard| {
        (heard.topic == "site/gate/yard/snapshot").then_some(())
    });
    let log = daemon.terminate();
    assert!(!log.contains("does not accept"), "{log}");
    assert!(!log.contains("does not let"), "{log}");
}

#[test]
fn a_sites_broker_passes_its_devices_on_with_its_own_certificate() {
    let site = Site::start_by(offered, |settings, _| settings);
    let mut middle = Subscriber::connect(site.broker.port(), "middle");
    let folder = site.folder.path().to_str().expect("UTF-8");
    let settings = crate::bridge::settings(site.port).replace("/etc/mosquitto/ternwatch", folder);
    // mosquitto started by root would drop the rights to read the key.
    let near = Broker::start_with(&format!("user root\n{settings}"));
    let (client, mut connection) =
        Client::builder(MqttOptions::new("pi", ("127.0.0.1", near.port())))
            .capacity(4)
            .build();
    let retained = PublishOptions::at_least_once().retained();
    client
        .publish("site/pi/state", "online", retained)
        .expect("a valid topic");
    std::thread::spawn(move || connection.iter().find(Result::is_err));
    expect_state(&mut middle, "online");
    let mut device = Subscriber::connect(near.port(), "device");
    assert!(site.publish("releases", "releases", "site/pi/model/offer"));
    device.expect("an offer from the middle", |heard| {
        (heard.topic == "site/pi/model/offer").then_some(())
    });
}

#[test]
fn without_a_certificate_the_broker_lets_nobody_in() {
    let site = Site::start();
    let authority = fs::read(site.path("authority.pem")).expect("readable");
    let mut options = MqttOptions::new("nobody", ("127.0.0.1", site.port));
    options.set_transport(Transport::tls(authority, None, None));
    let (_client, mut connection) = Client::builder(options).capacity(4).build();
    let error = connection.iter().find_map(|event| match event {
        Ok(Event::Incoming(Incoming::ConnAck(_))) => panic!("it was let in"),
        Ok(_) => None,
        Err(error) => Some(error),
    });
    assert!(
        !matches!(error, None | Some(ConnectionError::Timeout(_))),
        "{error:?}"
    );
}

#[test]
fn whoever_sends_models_shows_a_certificate_too_and_has_to_be_allowed_to_offer() {
    const TIMEOUT_S: u64 = 60;
    let site = Site::start();
    let mut bench = crate::update::bench(1);
    site.settle(&mut bench);
    let daemon = bench.run();
    let as_whom = |name: &str| {
        let [ca, certificate, key] = [
            "authority.pem",
            &format!("{name}.pem"),
            &format!("{name}.key"),
        ]
        .map(|f| site.path(f));
        let arguments = format!(
            "--tls --ca-file {ca} --client-certificate {certificate} --client-key {key} --device pi --timeout-s {TIMEOUT_S}"
        );
        let arguments: Vec<&str> = arguments.split(' ').collect();
        push(&bench.path("."), &bundle(2, |_| {}), site.port, &arguments)
    };
    // It may listen, and not offer: nobody waits for an answer.
    let begin = Instant::now();
    let (code, said) = as_whom("dashboard");
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("does not let this account send it"), "{said}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(TIMEOUT_S), "{took:?}");
    let (code, said) = as_whom("releases");
    assert_eq!(code, Some(0), "{said}\n{}", daemon.log());
    assert!(said.contains("pi: committed"), "{said}");
    daemon.terminate();
}
