//! Connections that have not said hello: bounded, and the oldest makes room, so that idle ones keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections that have not said hello. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handshakes {
    inner: Arc<Mutex<Inner>>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    came: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

/// One connection's place; given up when dropped.
#[derive(Debug)]
pub struct Handshake {
    handshakes: Handshakes,
    number: u64,
    /// Cancelled when the connection has to make room.
    pub evicted: CancellationToken,
}

impl Handshakes {
    /// At most `capacity` at a time.
    pub fn new(capacity: usize) -> Self {
        Self { inner: Arc::default(), capacity }
    }

    /// A place for a new connection; if there is none, the connection that waits longest loses its own.
    pub fn begin(&self) -> Handshake {
        let evicted = CancellationToken::new();
        let mut inner = self.lock();
        if inner.waiting.len() >= self.capacity
            && let Some((_, oldest)) = inner.waiting.pop_first()
        {
            metrics::counter!("relay_handshakes_evicted_total").increment(1);
            oldest.cancel();
        }
        inner.came += 1;
        let number = inner.came;
        inner.waiting.insert(number, evicted.clone());
        Handshake { handshakes: self.clone(), number, evicted }
    }

    /// Connections that wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.handshakes.lock().waiting.remove(&self.number);
    }
}
