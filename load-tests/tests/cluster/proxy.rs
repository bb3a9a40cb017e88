//! A way to one server that can be cut: from then on nothing passes, in either direction, and nobody is told. The connections stay open.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a connection on which nothing comes looks whether it is cut.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Proxy {
    pub(crate) url: String,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    /// A way to `url`.
    pub(crate) fn start(url: &str) -> anyhow::Result<Self> {
        let to = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, cut) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let shared = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                pass(client, server, &shared);
            }
        });
        Ok(Self { url: format!("http://{address}"), cut })
    }

    /// Cuts it, or makes it whole. What was swallowed does not come back.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

fn pass(client: TcpStream, server: TcpStream, cut: &Arc<AtomicBool>) {
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    for (from, to) in [(from, to), (server, client)] {
        let cut = cut.clone();
        std::thread::spawn(move || copy(from, to, &cut));
    }
}

/// Copies until either end closes; a connection that was cut once is good for nothing any more.
fn copy(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let (mut bytes, mut was_cut) = ([0; 16_384], false);
    if from.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    loop {
        let read = from.read(&mut bytes);
        was_cut |= cut.load(Ordering::SeqCst);
        match read {
            Ok(0) => break,
            Ok(_) if was_cut => {}
            Ok(read) if to.write_all(&bytes[..read]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    drop(to.shutdown(std::net::Shutdown::Both));
}
