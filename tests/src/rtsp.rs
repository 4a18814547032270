//! A network camera: RTSP 1.0 over TCP (RFC 2326), H.264 in RTP packets (RFC 6184) between the answers.
//!
//! Takes what it is to show; an ffmpeg process encodes and packs that in real time, whether somebody watches or not. It asks for
//! a password (Digest, RFC 2617) and sends over the connection itself only, as cameras do behind a firewall. Everything ends
//! when it is dropped.

use crate::broker::{DEADLINE, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const REALM: &str = "camera";
const NONCE: &str = "5ca1ab1e";
/// The longest line of a request, and the most lines that it has.
const LINE_BYTES_MAX: u64 = 4096;
const LINES_MAX: usize = 64;
/// How soon a thread notices that the camera is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running camera.
pub struct NetworkCamera {
    port: u16,
    encoder: Child,
    is_over: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

/// What every connection knows of the camera.
struct Shared {
    description: String,
    user: String,
    password: String,
    viewers: Mutex<Vec<Arc<Mutex<TcpStream>>>>,
}

impl NetworkCamera {
    /// One that shows what ffmpeg makes of these arguments, to who has the password.
    pub fn start(input: &[&str], user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sockets = [loopback_socket(), loopback_socket()];
        let port_of = |socket: &UdpSocket| socket.local_addr().expect("it is bound").port();
        let [rtp, rtcp] = sockets.each_ref().map(port_of);
        let file = folder.path().join("stream.sdp");
        let encoder = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-re"])
            .args(input)
            .args(["-pix_fmt", "yuv420p", "-c:v", "libx264", "-g", "10"])
            .args(["-preset", "ultrafast", "-tune", "zerolatency"])
            .args(["-f", "rtp", "-sdp_file"])
            .arg(&file)
            .arg(format!("rtp://127.0.0.1:{rtp}?rtcpport={rtcp}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ffmpeg is installed");
        let is_over = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let camera = Self {
            port: listener.local_addr().expect("it is bound").port(),
            encoder,
            is_over: is_over.clone(),
            _folder: folder,
        };
        let description = wait_for("the description of the stream", || {
            let text = fs::read_to_string(&file).ok()?;
            text.contains("a=fmtp").then_some(text)
        });
        let shared = Arc::new(Shared {
            description: description + "a=control:track1\r\n",
            user: user.into(),
            password: password.into(),
            viewers: Mutex::default(),
        });
        for (channel, socket) in (0..).zip(sockets) {
            let (shared, is_over) = (shared.clone(), is_over.clone());
            thread::spawn(move || relay(&socket, channel, &shared, &is_over));
        }
        listener.set_nonblocking(true).expect("a socket can do it");
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = shared.clone();
                        // It is over when either side hangs up.
                        thread::spawn(move || converse(stream, &shared));
                    }
                    Err(_) => thread::sleep(LOOK_EVERY),
                }
            }
            for viewer in shared.viewers.lock().expect("no panic").drain(..) {
                // It may have hung up before.
                let _ = viewer.lock().map(|stream| stream.shutdown(Shutdown::Both));
            }
        });
        camera
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets no more pictures come, while its connections stay open.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.encoder), Signal::STOP).expect("it is our child");
    }

    /// Lets pictures come again.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.encoder), Signal::CONT).expect("it is our child");
    }
}

impl Drop for NetworkCamera {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It may have failed, and ended; then a test says so.
        let _ = self.encoder.kill();
        let _ = self.encoder.wait();
    }
}

fn loopback_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let timeout = socket.set_read_timeout(Some(LOOK_EVERY));
    timeout.expect("a socket can do it");
    socket
}

/// Hands what the encoder packs to everybody who watches, as packets of a channel of the connection.
fn relay(socket: &UdpSocket, channel: u8, shared: &Shared, is_over: &AtomicBool) {
    let mut packet = [0; 4 + 65_536];
    while !is_over.load(Ordering::Relaxed) {
        let Ok(count) = socket.recv(&mut packet[4..]) else {
            continue;
        };
        let len = u16::try_from(count).expect("a datagram is shorter");
        packet[0] = b'$';
        packet[1] = channel;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let mut viewers = shared.viewers.lock().expect("no panic");
        viewers.retain(|viewer| {
            let mut stream = viewer.lock().expect("no panic");
            stream.write_all(&packet[..4 + count]).is_ok()
        });
    }
}

/// What a viewer asks for; the names of headers in lower case.
#[derive(Default)]
struct Request {
    method: String,
    uri: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Answers a viewer until it hangs up.
fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let viewer = Arc::new(Mutex::new(stream));
    loop {
        let request = read_request(&mut reader)?;
        let (status, headers, body) = answer(&request, shared);
        let text = format!(
            "RTSP/1.0 {status}\r\nCSeq: {}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            request.header("cseq"),
            body.len()
        );
        let sent = viewer.lock().expect("no panic").write_all(text.as_bytes());
        sent?;
        if request.method == "PLAY" && status == "200 OK" {
            let mut viewers = shared.viewers.lock().expect("no panic");
            viewers.push(viewer.clone());
        }
    }
}

/// The next request; what a viewer reports of the packets that it got, between its requests, is skipped.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Request> {
    let mut start = [0];
    reader.read_exact(&mut start)?;
    while start == *b"$" {
        let mut header = [0; 3];
        reader.read_exact(&mut header)?;
        let len = u16::from_be_bytes([header[1], header[2]]);
        io::copy(&mut reader.take(len.into()), &mut io::sink())?;
        reader.read_exact(&mut start)?;
    }
    let first = String::from_utf8_lossy(&start).into_owned() + &read_line(reader)?;
    let mut request = Request::default();
    if let [method, uri, ..] = first.split(' ').collect::<Vec<_>>()[..] {
        (request.method, request.uri) = (method.into(), uri.into());
    }
    for _ in 0..LINES_MAX {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        request.headers.insert(name, value.trim().into());
    }
    Ok(request)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    match reader.take(LINE_BYTES_MAX).read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().into()),
    }
}

/// Status, headers and body.
fn answer(request: &Request, shared: &Shared) -> (&'static str, String, String) {
    let transport = "RTP/AVP/TCP;unicast;interleaved=0-1";
    let (status, headers) = match request.method.as_str() {
        "OPTIONS" => (
            "200 OK",
            "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n".into(),
        ),
        _ if !is_permitted(request, shared) => (
            "401 Unauthorized",
            format!("WWW-Authenticate: Digest realm=\"{REALM}\", nonce=\"{NONCE}\"\r\n"),
        ),
        "DESCRIBE" => {
            let headers = "Content-Type: application/sdp\r\n".into();
            return ("200 OK", headers, shared.description.clone());
        }
        "SETUP" if request.header("transport").starts_with(transport) => (
            "200 OK",
            format!("Session: 1;timeout=60\r\nTransport: {transport}\r\n"),
        ),
        "SETUP" => ("461 Unsupported Transport", String::new()),
        "PLAY" | "GET_PARAMETER" | "TEARDOWN" => ("200 OK", "Session: 1\r\n".into()),
        _ => ("501 Not Implemented", String::new()),
    };
    (status, headers, String::new())
}

/// Whether it proves that it knows the password.
fn is_permitted(request: &Request, shared: &Shared) -> bool {
    let account = md5(&format!("{}:{REALM}:{}", shared.user, shared.password));
    let what = md5(&format!("{}:{}", request.method, request.uri));
    let proof = md5(&format!("{account}:{NONCE}:{what}"));
    let shown = request.header("authorization");
    shown.starts_with("Digest ") && shown.contains(&format!("response=\"{proof}\""))
}

/// In hexadecimal, as Digest has it; nothing else here needs it.
fn md5(text: &str) -> String {
    let made = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | md5sum", "sh", text])
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&made.stdout);
    text.split(' ').next().unwrap_or_default().into()
}
