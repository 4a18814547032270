//! One port in front of several: what a balancer of TCP connections does before a cluster.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Two threads a connection: they need little.
const STACK_BYTES: usize = 64 << 10;

/// Gives every connection to the next port that takes one.
pub(crate) struct Balancer {
    port: u16,
    is_over: Arc<AtomicBool>,
}

impl Balancer {
    pub(crate) fn start(ports: Vec<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("it is bound").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        thread::spawn(move || {
            for (next, near) in listener.incoming().enumerate() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let far = (0..ports.len()).find_map(|step| {
                    let port = ports[(next + step) % ports.len()];
                    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
                });
                // Without a broker behind it, the near end just closes.
                if let (Ok(near), Some(far)) = (near, far) {
                    join(&near, &far);
                }
            }
        });
        Self { port, is_over }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = TcpStream::connect_timeout(
            &(Ipv4Addr::LOCALHOST, self.port).into(),
            Duration::from_secs(1),
        );
    }
}

fn join(near: &TcpStream, far: &TcpStream) {
    for stream in [near, far] {
        let _ = stream.set_nodelay(true);
    }
    for (from, to) in [(near, far), (far, near)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let forwarding = thread::Builder::new().stack_size(STACK_BYTES);
        let _ = forwarding.spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            // A broker that died is lost for whoever is at the other end.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
