//! A TCP proxy between clients and one node, whose connections can be cut.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Passes bytes on to one address.
pub(super) struct Proxy {
    port: u16,
    cut: Arc<Notify>,
}

impl Proxy {
    /// Listens on a port of its own; runs until the runtime ends.
    ///
    /// # Errors
    /// No port.
    pub(super) async fn start(to: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (cut, to) = (Arc::new(Notify::new()), to.to_owned());
        let cutting = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to.clone(), cutting.clone()));
            }
        });
        Ok(Self { port, cut })
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Drops all connections, in the middle of whatever they carry.
    pub(super) fn cut(&self) {
        self.cut.notify_waiters();
    }
}

async fn pass(mut client: TcpStream, to: String, cut: Arc<Notify>) {
    // A node that is down: the client sees its connection end.
    let Ok(mut node) = TcpStream::connect(to).await else { return };
    tokio::select! {
        // Whichever side ends, and how, is seen by the other.
        _ = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
        () = cut.notified() => {}
    }
}
