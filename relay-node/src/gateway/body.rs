//! How long the body of a request may take: one that stops or trickles is given up, so that it holds its connection for a
//! bounded time whatever it is.

use std::time::Duration;

use relay_protocol::{ErrorCode, JobError};
use tokio::time::{Instant, timeout};

use crate::settings::GatewaySettings;

/// The pace of one body: in each window of time, some bytes at least. Only the time that is spent waiting for the client
/// counts, not what a slow store takes.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    bytes_min: usize,
    /// What is left of this window.
    left: Duration,
    /// Bytes that must still come in it.
    owed: usize,
}

impl Pace {
    /// As the settings want it.
    pub(super) fn of(settings: &GatewaySettings) -> Self {
        let (window, bytes_min) = (Duration::from_millis(settings.body_timeout_ms), settings.body_bytes_min);
        Self { window, bytes_min, left: window, owed: bytes_min }
    }

    /// Waits for `coming` until the window ends.
    ///
    /// # Errors
    /// [`ErrorCode::RequestTimeout`].
    pub(super) async fn wait<T>(&mut self, coming: impl Future<Output = T>) -> Result<T, JobError> {
        let since = Instant::now();
        let came = timeout(self.left, coming).await.map_err(|_| self.too_slow())?;
        self.left = self.left.saturating_sub(since.elapsed());
        Ok(came)
    }

    /// These many bytes came; once they are enough, a new window begins.
    pub(super) fn came(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_sub(bytes);
        if self.owed == 0 {
            (self.left, self.owed) = (self.window, self.bytes_min);
        }
    }

    fn too_slow(&self) -> JobError {
        let (bytes, window) = (self.bytes_min, self.window.as_millis());
        let message = format!("the body stopped or came too slowly: send at least {bytes} bytes in each {window} ms");
        JobError::new(ErrorCode::RequestTimeout, message)
    }
}
