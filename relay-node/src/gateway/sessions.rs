//! The node's open sessions, for load figures and display.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use relay_protocol::SessionId;
use relay_protocol::cluster::SessionInfo;
use relay_protocol::hello::MovedV1;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::rate::Rate;

/// The open sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: Mutex<HashMap<SessionId, Arc<SessionFacts>>>,
    bytes: AtomicU64,
    /// Zero of the rates' clock.
    born: Instant,
    traffic: Mutex<Rate>,
    processor: Mutex<Rate>,
}

/// What is shown of one session.
#[derive(Debug)]
pub struct SessionFacts {
    /// Identity of the session.
    pub id: SessionId,
    /// Whose.
    pub tenant: String,
    /// Who.
    pub subject: String,
    /// Milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
    /// Jobs that it watches.
    pub jobs: AtomicU32,
    /// Bytes in and out so far.
    pub bytes: AtomicU64,
    /// Tells the session where to go on; closed once it has ended.
    pub moves: watch::Sender<Option<MovedV1>>,
}

/// Lists the session until it is dropped.
#[derive(Debug)]
pub struct SessionEntry {
    sessions: Sessions,
    /// What is shown.
    pub facts: Arc<SessionFacts>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Arc::new(Inner {
            open: Mutex::default(),
            bytes: AtomicU64::new(0),
            born: Instant::now(),
            traffic: Mutex::default(),
            processor: Mutex::default(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// Lists a session.
    pub fn open(&self, facts: SessionFacts) -> SessionEntry {
        let facts = Arc::new(facts);
        lock(&self.0.open).insert(facts.id, facts.clone());
        metrics::gauge!("relay_sessions").increment(1.0);
        SessionEntry { sessions: self.clone(), facts }
    }

    /// Open sessions.
    pub fn len(&self) -> usize {
        lock(&self.0.open).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<SessionFacts>> {
        lock(&self.0.open).values().cloned().collect()
    }

    /// At most `limit` of them.
    pub fn list(&self, limit: usize) -> Vec<SessionInfo> {
        let open = lock(&self.0.open);
        open.values()
            .take(limit)
            .map(|facts| SessionInfo {
                session_id: facts.id,
                tenant: facts.tenant.clone(),
                subject: facts.subject.clone(),
                node: String::new(),
                jobs: facts.jobs.load(Ordering::Relaxed),
                opened_at_ms: facts.opened_at_ms,
            })
            .collect()
    }

    /// Bytes per second, in and out, of late: to be asked every second or so.
    pub fn bytes_per_s(&self) -> u64 {
        let total = self.0.bytes.load(Ordering::Relaxed);
        lock(&self.0.traffic).at(self.0.born.elapsed(), total as f64) as u64
    }

    /// Processor cores that this process used of late: to be asked every second or so.
    pub fn cores_in_use(&self) -> f32 {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = Duration::new(spent.tv_sec.unsigned_abs(), 0).as_secs_f64() + spent.tv_nsec as f64 / 1e9;
        lock(&self.0.processor).at(self.0.born.elapsed(), spent) as f32
    }
}

impl SessionEntry {
    /// Counts bytes in or out.
    pub fn count(&self, bytes: usize) {
        self.facts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sessions.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        lock(&self.sessions.0.open).remove(&self.facts.id);
        metrics::gauge!("relay_sessions").decrement(1.0);
    }
}
