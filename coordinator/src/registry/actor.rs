//! The registry's one writer: an actor behind a handle with permits, started afresh when it dies. It only takes heartbeats and
//! places sessions while this coordinator leads, and begins anew with each term.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use relay_protocol::cluster::{BackendInfo, Heartbeat, HeartbeatReply, Placement};
use relay_runtime::admission::{AdmissionError, Permit, Permits};
use relay_runtime::supervise::{LifeLine, RestartPolicy, life_line, supervise};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::core::{Happening, HeartbeatRefusal, Registry, RegistryRules, Sender};
use super::view::View;
use crate::backends::roster::{Found, Roster};
use crate::backends::{BackendEntry, ProbeReport};
use crate::election::{Office, OfficeWatch};
use crate::metrics;

/// Requests to the registry that are queued or answered at a time; the others wait outside.
pub const REGISTRY_REQUESTS_MAX: u32 = 256;
/// Longest wait for a place, and for the writer to be there, in milliseconds.
pub const REGISTRY_WAIT_MS: u64 = 1_000;
/// How often time passes for the registry without any request, in milliseconds.
const TICK_MS: u64 = 250;

/// Why the registry did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Too many requests wait for it. Try again.
    #[error("the registry is overloaded: {REGISTRY_REQUESTS_MAX} requests are in progress")]
    Overloaded,
    /// It died and is being started again, or the process is going down. Try again.
    #[error("the registry is not there: starting again or going down")]
    Away,
    /// Another coordinator leads, or none does yet.
    #[error("this coordinator does not lead{}", leader.as_ref().map(|url| format!("; {url} does")).unwrap_or_default())]
    NotLeader {
        /// Where the leader is reached, if it is known.
        leader: Option<String>,
    },
    /// The heartbeat is not taken.
    #[error(transparent)]
    Refused(#[from] HeartbeatRefusal),
}

/// Who is told when nodes come and go. Must not block.
pub type Witness = Arc<dyn Fn(Happening) + Send + Sync>;

/// Handle to the registry. Cheap to clone; every clone draws on the same permits.
#[derive(Clone)]
pub struct RegistryHandle {
    shared: Arc<Shared>,
}

struct Shared {
    writer: watch::Sender<Option<Addr<Writer>>>,
    permits: Permits,
    view: watch::Sender<Arc<View>>,
    office: OfficeWatch,
    /// What every writer is told at its start, and when it changes.
    roster: Mutex<Roster>,
    /// Zero of the registry's clock.
    born: Instant,
}

impl RegistryHandle {
    /// Starts the writer on this thread's actix arbiter, and a fresh one each time it dies, until `shutdown`.
    ///
    /// A fresh one knows nothing of the grants of the one before: it waits one lease time, like a new coordinator.
    ///
    /// # Panics
    /// Outside an actix system.
    pub fn start(
        rules: RegistryRules,
        backends: Vec<BackendEntry>,
        witness: Witness,
        office: OfficeWatch,
        shutdown: CancellationToken,
    ) -> Self {
        let handle = Self {
            shared: Arc::new(Shared {
                writer: watch::Sender::new(None),
                permits: Permits::new("registry", REGISTRY_REQUESTS_MAX),
                view: watch::Sender::new(Arc::default()),
                office,
                roster: Mutex::default(),
                born: Instant::now(),
            }),
        };
        let shared = handle.shared.clone();
        actix::spawn(async move {
            supervise("registry", RestartPolicy::default(), &shutdown, |life| {
                let mut rules = rules.clone();
                if life > 1 {
                    rules.leases.restart_wait_ms = rules.leases.lease_ttl_ms;
                }
                let (line, death) = life_line();
                let mut core = Registry::new(rules, shared.now_ms(), &backends);
                core.renew(&shared.roster());
                let writer =
                    Writer { core, leads: None, shared: shared.clone(), witness: witness.clone(), _line: line };
                writer.publish();
                shared.writer.send_replace(Some(writer.start()));
                let shared = shared.clone();
                async move {
                    death.await;
                    shared.writer.send_replace(None);
                }
            })
            .await;
            if let Some(writer) = shared.writer.send_replace(None) {
                // Its ticks would keep it alive. Err: it is dead already.
                _ = writer.send(Stop).await;
            }
        });
        handle
    }

    /// Takes a node's heartbeat and answers it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn heartbeat(&self, beat: Heartbeat, by: Sender) -> Result<HeartbeatReply, RegistryError> {
        self.shared.leads()?;
        let (writer, permit) = self.admitted().await?;
        writer.send(Beat { beat, by, _permit: permit }).await.map_err(|_| RegistryError::Away)?
    }

    /// Takes what a probe of `backend` found.
    ///
    /// # Errors
    /// [`RegistryError::Overloaded`] or [`RegistryError::Away`]: the next probe will tell.
    pub async fn probed(&self, backend: Arc<str>, report: ProbeReport) -> Result<(), RegistryError> {
        let (writer, permit) = self.admitted().await?;
        writer.send(Probed { backend, report, _permit: permit }).await.map_err(|_| RegistryError::Away)
    }

    /// Changes what is known of backends beside the settings.
    ///
    /// # Errors
    /// [`RegistryError::Overloaded`] or [`RegistryError::Away`]: the writer will hear of it with the next change, or when it
    /// is started again.
    pub async fn renew(&self, change: impl FnOnce(&mut Roster)) -> Result<(), RegistryError> {
        change(&mut self.shared.roster());
        let (writer, permit) = self.admitted().await?;
        writer.send(Renew { _permit: permit }).await.map_err(|_| RegistryError::Away)
    }

    /// Says what is known of backends before the writer begins: to be called right after [`start`](Self::start).
    pub fn begin_with(&self, found: Found) {
        self.shared.roster().found = found;
    }

    /// What is known of backends beside the settings.
    pub fn roster(&self) -> Roster {
        self.shared.roster().clone()
    }

    /// The node for a new session; `None` if none is ready and reachable by clients.
    ///
    /// # Errors
    /// [`RegistryError`], but not [`RegistryError::Refused`].
    pub async fn place(&self) -> Result<Option<Placement>, RegistryError> {
        self.shared.leads()?;
        let (writer, permit) = self.admitted().await?;
        writer.send(Place { _permit: permit }).await.map_err(|_| RegistryError::Away)?
    }

    /// The newest snapshot, if this coordinator leads: a standby's is of no cluster.
    ///
    /// # Errors
    /// [`RegistryError::NotLeader`].
    pub fn leading_view(&self) -> Result<Arc<View>, RegistryError> {
        self.shared.leads()?;
        Ok(self.view())
    }

    /// Whether this coordinator leads, and who does if not.
    pub fn office(&self) -> Office {
        self.shared.office.borrow().clone()
    }

    /// Follows [`Self::office`].
    pub fn offices(&self) -> OfficeWatch {
        self.shared.office.clone()
    }

    /// The newest snapshot; never waits for the writer.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.borrow().clone()
    }

    /// Follows the snapshots.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.subscribe()
    }

    /// The registry's clock: monotonic milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// Refuses new requests, then waits until the last admitted one is answered. `false`: `deadline` passed first.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.permits.drain(deadline).await
    }

    async fn admitted(&self) -> Result<(Addr<Writer>, Permit), RegistryError> {
        let patience = Duration::from_millis(REGISTRY_WAIT_MS);
        let permit = self.shared.permits.acquire(patience).await.map_err(|error| match error {
            AdmissionError::Closed { .. } => RegistryError::Away,
            _ => RegistryError::Overloaded,
        })?;
        let mut writer = self.shared.writer.subscribe();
        let there = timeout(patience, writer.wait_for(Option::is_some)).await.map_err(|_| RegistryError::Away)?;
        let addr = there.ok().and_then(|addr| addr.clone()).ok_or(RegistryError::Away)?;
        Ok((addr, permit))
    }
}

impl Shared {
    /// The incarnation that this coordinator leads under now.
    fn leads(&self) -> Result<u64, RegistryError> {
        let office = self.office.borrow();
        office.leads().ok_or_else(|| RegistryError::NotLeader { leader: office.leader_url.clone() })
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The actor: moves messages between the handle and the pure core.
struct Writer {
    core: Registry,
    /// The incarnation under which the core leads.
    leads: Option<u64>,
    shared: Arc<Shared>,
    witness: Witness,
    _line: LifeLine,
}

impl Writer {
    /// Begins anew where a term began or ended. Each request asks, and acts in the same breath.
    fn take_office(&mut self) -> Result<(), RegistryError> {
        let leads = self.shared.leads();
        let now_ms = self.shared.now_ms();
        match (&leads, self.leads) {
            (Ok(incarnation), leads) if leads != Some(*incarnation) => {
                self.core.lead(now_ms, *incarnation);
                self.leads = Some(*incarnation);
                self.publish();
            }
            (Err(_), Some(_)) => {
                self.core.rest(now_ms);
                self.leads = None;
                self.publish();
            }
            _ => {}
        }
        leads.map(|_| ())
    }

    fn publish(&self) {
        let before = self.shared.view.send_replace(Arc::new(self.core.view()));
        let view = self.shared.view.borrow();
        let is_gone = |known: &&BackendInfo| view.backends.binary_search_by(|now| now.url.cmp(&known.url)).is_err();
        before.backends.iter().filter(is_gone).for_each(|known| metrics::gone(&known.url));
        let is_listed = |node: &str| view.nodes.binary_search_by(|(now, _)| now.node.as_str().cmp(node)).is_ok();
        before
            .nodes
            .iter()
            .filter(|(known, _)| !is_listed(&known.node))
            .for_each(|(known, _)| metrics::node_gone(&known.node));
    }

    fn tell(&self, happenings: Vec<Happening>) {
        happenings.into_iter().for_each(|happening| (self.witness)(happening));
    }
}

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(Duration::from_millis(TICK_MS), |writer, _| {
            let now_ms = writer.shared.now_ms();
            // A standby's registry is empty: for it nothing but time passes.
            _ = writer.take_office();
            let happenings = writer.core.tick(now_ms);
            writer.publish();
            metrics::show(&writer.shared.view.borrow(), now_ms);
            writer.tell(happenings);
        });
    }
}

#[derive(Message)]
#[rtype(result = "Result<HeartbeatReply, RegistryError>")]
struct Beat {
    beat: Heartbeat,
    by: Sender,
    _permit: Permit,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Probed {
    backend: Arc<str>,
    report: ProbeReport,
    _permit: Permit,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Renew {
    _permit: Permit,
}

#[derive(Message)]
#[rtype(result = "Result<Option<Placement>, RegistryError>")]
struct Place {
    _permit: Permit,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Writer {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        context.stop();
    }
}

impl Handler<Beat> for Writer {
    type Result = Result<HeartbeatReply, RegistryError>;

    fn handle(&mut self, message: Beat, _: &mut Self::Context) -> Self::Result {
        self.take_office()?;
        let (reply, happenings) = self.core.heartbeat(self.shared.now_ms(), message.beat, message.by)?;
        self.publish();
        self.tell(happenings);
        Ok(reply)
    }
}

impl Handler<Probed> for Writer {
    type Result = ();

    fn handle(&mut self, message: Probed, _: &mut Self::Context) {
        self.core.probed(&message.backend, message.report);
        self.publish();
    }
}

impl Handler<Renew> for Writer {
    type Result = ();

    fn handle(&mut self, _: Renew, _: &mut Self::Context) {
        self.core.renew(&self.shared.roster());
        self.publish();
    }
}

impl Handler<Place> for Writer {
    type Result = Result<Option<Placement>, RegistryError>;

    fn handle(&mut self, _: Place, _: &mut Self::Context) -> Self::Result {
        self.take_office()?;
        Ok(self.core.place(self.shared.now_ms()))
    }
}
