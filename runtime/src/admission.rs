//! Bounded admission: at most so many pieces of work at a time, a bounded number waiting, and a way to close the door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;

/// Callers that may wait for a permit at a time, unless [`Permits::with_waiting_max`] says otherwise.
pub const WAITING_MAX: u32 = 1_024;

/// Why there is no permit. Each variant asks something else of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// All `capacity` permits are taken (and, for a wait, the waiting line is full). Answer "overloaded, retry later".
    #[error("{name} is full: {capacity} in use")]
    Full {
        /// Which admission.
        name: &'static str,
        /// How many permits it has.
        capacity: u32,
    },
    /// None came free within the deadline.
    #[error("{name} had no room within {waited_ms} ms: {capacity} in use")]
    DeadlinePassed {
        /// Which admission.
        name: &'static str,
        /// How many permits it has.
        capacity: u32,
        /// The deadline, in milliseconds.
        waited_ms: u64,
    },
    /// The process is shutting down. Answer "go to another node".
    #[error("{name} is closed: shutting down")]
    Closed {
        /// Which admission.
        name: &'static str,
    },
}

/// A counted door. Cheap to clone; all clones share the permits.
///
/// Shows itself as `relay_permits_in_use{name}` and `relay_permits_capacity{name}`; doors of one name add up. Make it
/// after [`crate::metrics::install`], else the gauges stay unseen.
#[derive(Debug, Clone)]
pub struct Permits {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    capacity: u32,
    waiting_max: u32,
    waiting: AtomicU32,
    admitted: AtomicU32,
    draining: AtomicBool,
    semaphore: Arc<Semaphore>,
    in_use: Gauge,
    capacity_gauge: Gauge,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permits").field("name", &self.name).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.capacity_gauge.decrement(self.capacity);
    }
}

/// The right to one piece of work; dropping it gives the place back. Let it travel with the work.
#[derive(Debug)]
#[must_use = "dropping the permit gives the place back at once"]
pub struct Permit {
    _place: OwnedSemaphorePermit,
    _door: InUse,
}

/// Keeps the gauge right for as long as the permit lives.
#[derive(Debug)]
struct InUse(Arc<Inner>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::Relaxed);
        self.0.in_use.decrement(1);
    }
}

impl Permits {
    /// A door named `name` (a metric label: lower case, few distinct ones) with `capacity` permits.
    pub fn new(name: &'static str, capacity: u32) -> Self {
        Self::with_waiting_max(name, capacity, WAITING_MAX)
    }

    /// The same with a line of at most `waiting_max` callers; 0 makes [`acquire`](Self::acquire) never wait.
    pub fn with_waiting_max(name: &'static str, capacity: u32, waiting_max: u32) -> Self {
        let in_use = metrics::gauge!("relay_permits_in_use", "name" => name);
        let capacity_gauge = metrics::gauge!("relay_permits_capacity", "name" => name);
        in_use.increment(0);
        capacity_gauge.increment(capacity);
        let semaphore = Arc::new(Semaphore::new(capacity as usize));
        let inner = Inner {
            name,
            capacity,
            waiting_max,
            waiting: AtomicU32::new(0),
            admitted: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            semaphore,
            in_use,
            capacity_gauge,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A permit now, or not at all.
    ///
    /// # Errors
    /// [`AdmissionError::Full`] or [`AdmissionError::Closed`].
    pub fn try_acquire(&self) -> Result<Permit, AdmissionError> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(self.closed());
        }
        match self.inner.semaphore.clone().try_acquire_owned() {
            Ok(place) => Ok(self.admit(place)),
            Err(TryAcquireError::NoPermits) => Err(self.full()),
            Err(TryAcquireError::Closed) => Err(self.closed()),
        }
    }

    /// A permit, first come first served, waiting at most `deadline`.
    ///
    /// # Errors
    /// [`AdmissionError`]: the line is full, the deadline passed, or the door closed (also while waiting).
    pub async fn acquire(&self, deadline: Duration) -> Result<Permit, AdmissionError> {
        match self.try_acquire() {
            Err(AdmissionError::Full { .. }) => {}
            decided => return decided,
        }
        let _line = self.stand_in_line()?;
        match timeout(deadline, self.inner.semaphore.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(self.admit(place)),
            Ok(Err(_)) => Err(self.closed()),
            Err(_) => {
                let waited_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                Err(AdmissionError::DeadlinePassed { name: self.inner.name, capacity: self.inner.capacity, waited_ms })
            }
        }
    }

    /// Refuses whoever comes from now on with [`AdmissionError::Closed`], and waits until the last permit is back; those
    /// who already stand in line are admitted before. `false`: `deadline` passed first; whoever still waits then is
    /// refused too.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.inner.draining.store(true, Ordering::Relaxed);
        let mut all = std::pin::pin!(self.inner.semaphore.acquire_many(self.inner.capacity));
        let result = timeout(deadline, all.as_mut()).await;
        self.inner.semaphore.close(); // while `all` or its place in line is held, so that no waiter slips in between
        matches!(result, Ok(Ok(_)))
    }

    /// Permits that are out now.
    pub fn in_use(&self) -> u32 {
        self.inner.admitted.load(Ordering::Relaxed)
    }

    /// How many permits there are.
    pub fn capacity(&self) -> u32 {
        self.inner.capacity
    }

    /// What the door is called in metrics and errors.
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    fn admit(&self, place: OwnedSemaphorePermit) -> Permit {
        self.inner.admitted.fetch_add(1, Ordering::Relaxed);
        self.inner.in_use.increment(1);
        Permit { _place: place, _door: InUse(self.inner.clone()) }
    }

    fn stand_in_line(&self) -> Result<InLine<'_>, AdmissionError> {
        let place = InLine(&self.inner.waiting);
        let before = self.inner.waiting.fetch_add(1, Ordering::Relaxed);
        if before < self.inner.waiting_max { Ok(place) } else { Err(self.full()) }
    }

    fn full(&self) -> AdmissionError {
        AdmissionError::Full { name: self.inner.name, capacity: self.inner.capacity }
    }

    fn closed(&self) -> AdmissionError {
        AdmissionError::Closed { name: self.inner.name }
    }
}

/// A place in the waiting line, also given back when the waiting future is dropped.
struct InLine<'a>(&'a AtomicU32);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
