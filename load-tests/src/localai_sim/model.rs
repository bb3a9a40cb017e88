//! One model of a simulated server: cold until the first request, one worker with an unbounded queue before it, and dead for
//! a while after its worker was killed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, LogNormal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::counters::ModelCounters;
use super::failure::Failure;
use super::settings::{ModelSettings, SimulatorSettings};

/// Longest time that a model which failed to load is not tried again.
const COOLDOWN_MAX: Duration = Duration::from_secs(300);

/// How fast simulated time passes.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    speed: f64,
}

impl Pace {
    pub(crate) fn new(speed: f64) -> Self {
        Self { speed: if speed > 0.0 { speed } else { 1.0 } }
    }

    /// Real time of simulated work.
    fn scaled(&self, work: Duration) -> Duration {
        work.div_f64(self.speed)
    }
}

/// What is the matter with a model's worker.
enum Life {
    /// Not loaded; the next request loads it.
    Cold,
    /// Loaded; the token fires when it is killed.
    Loaded(CancellationToken),
    /// Killed, and nobody noticed yet: every request fails at once.
    Dead { until: Instant },
    /// Failed to load; not tried again before.
    Cooldown { until: Instant, wait: Duration },
}

struct Inner {
    life: Life,
    counters: ModelCounters,
}

/// One model.
pub(crate) struct Model {
    pub(crate) settings: ModelSettings,
    pace: Pace,
    seed: u64,
    dead_window: Duration,
    load_cooldown: Duration,
    workers: Arc<Semaphore>,
    loading: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

impl Model {
    pub(crate) fn new(settings: ModelSettings, server: &SimulatorSettings, pace: Pace) -> Self {
        // Each model draws its own numbers from the server's seed.
        let seed = settings.id.bytes().fold(server.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        Self {
            pace,
            seed,
            dead_window: server.dead_window,
            load_cooldown: server.load_cooldown,
            workers: Arc::new(Semaphore::new(settings.workers.max(1))),
            loading: tokio::sync::Mutex::new(()),
            inner: Mutex::new(Inner { life: Life::Cold, counters: ModelCounters::default() }),
            settings,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> ModelCounters {
        self.inner().counters.clone()
    }

    /// Whether its worker runs, as far as the server knows.
    pub(crate) fn is_loaded(&self) -> bool {
        matches!(self.inner().life, Life::Loaded(_) | Life::Dead { .. })
    }

    /// Kills the worker. `false`: there is none.
    pub(crate) fn kill(&self) -> bool {
        let dead = Life::Dead { until: Instant::now() + self.dead_window };
        self.end_life(dead)
    }

    /// Ends the worker in order, as `/backend/shutdown` does. `false`: there is none.
    pub(crate) fn unload(&self) -> bool {
        self.end_life(Life::Cold)
    }

    fn end_life(&self, next: Life) -> bool {
        let mut inner = self.inner();
        let Life::Loaded(life) = &inner.life else { return false };
        life.cancel();
        inner.life = next;
        true
    }

    /// Registers a request; it counts as cancelled when the visit is dropped without an outcome.
    pub(crate) fn visit(self: &Arc<Self>) -> Visit {
        let mut inner = self.inner();
        let counters = &mut inner.counters;
        counters.requests += 1;
        counters.in_flight += 1;
        counters.in_flight_max = counters.in_flight_max.max(counters.in_flight);
        Visit { number: counters.requests, model: self.clone(), work: Duration::ZERO, ended: false }
    }

    /// Loads the model if it is cold; several callers share one load.
    pub(crate) async fn load(&self) -> Result<CancellationToken, Failure> {
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        let _one_at_a_time = self.loading.lock().await;
        if let Some(known) = self.known()? {
            return Ok(known);
        }
        tokio::time::sleep(self.pace.scaled(self.settings.load)).await;
        let mut inner = self.inner();
        if self.settings.load_fails {
            let wait = match inner.life {
                Life::Cooldown { wait, .. } => (wait * 2).min(COOLDOWN_MAX),
                _ => self.load_cooldown,
            };
            inner.life = Life::Cooldown { until: Instant::now() + wait, wait };
            return Err(Failure::load_failed());
        }
        let life = CancellationToken::new();
        inner.counters.loads += 1;
        inner.life = Life::Loaded(life.clone());
        Ok(life)
    }

    /// The living worker, the failure that stands for it, or `None` if it must be loaded.
    fn known(&self) -> Result<Option<CancellationToken>, Failure> {
        let mut inner = self.inner();
        match &inner.life {
            Life::Loaded(life) => Ok(Some(life.clone())),
            Life::Dead { until } if Instant::now() < *until => Err(Failure::worker_dead()),
            Life::Dead { .. } => {
                inner.life = Life::Cold;
                Ok(None)
            }
            Life::Cooldown { until, wait } if Instant::now() < *until => {
                let left = (*until - Instant::now()).as_secs();
                Err(Failure::cooldown(&self.settings.id, left, wait.as_secs().max(1)))
            }
            Life::Cold | Life::Cooldown { .. } => Ok(None),
        }
    }

    /// Work of request `number` with `units` of input, drawn from the seed.
    fn work(&self, number: u64, units: f64) -> Duration {
        let plain = self.settings.base_s + self.settings.per_unit_s * units;
        let spread = self.settings.spread;
        let factor = match LogNormal::new(-spread * spread / 2.0, spread) {
            Ok(distribution) if spread > 0.0 => {
                distribution.sample(&mut StdRng::seed_from_u64(self.seed.wrapping_add(number)))
            }
            _ => 1.0,
        };
        Duration::from_secs_f64((plain * factor).clamp(0.0, 86_400.0))
    }
}

/// A request's stay at a model.
pub(crate) struct Visit {
    model: Arc<Model>,
    number: u64,
    /// The work of its turn, in simulated time; zero before that.
    work: Duration,
    ended: bool,
}

impl Visit {
    /// Waits for the model to be loaded and for a worker.
    pub(crate) async fn turn(&mut self, units: f64, ending: &CancellationToken) -> Result<Turn, Failure> {
        let work = self.model.work(self.number, units);
        let model = &self.model;
        let turn = async {
            let life = model.load().await?;
            let worker = tokio::select! {
                worker = model.workers.clone().acquire_owned() => worker.map_err(|_| Failure::worker_dead())?,
                () = life.cancelled() => return Err(Failure::worker_died()),
            };
            Ok(Turn { life, work, pace: model.pace.clone(), ending: ending.clone(), _worker: worker })
        };
        let turn = tokio::select! {
            turn = turn => turn?,
            () = ending.cancelled() => return Err(Failure::ending()),
        };
        self.work = work;
        Ok(turn)
    }

    /// Waits behind running work as a request does, for no work of its own.
    pub(crate) async fn queue(&mut self, ending: &CancellationToken) -> Result<(), Failure> {
        self.turn(0.0, ending).await?;
        self.work = Duration::ZERO;
        Ok(())
    }

    /// Ends the stay with an answer or a failure.
    pub(crate) fn end<T>(&mut self, outcome: &Result<T, Failure>) {
        self.ended = true;
        let mut inner = self.model.inner();
        match outcome {
            Ok(_) => {
                inner.counters.completed += 1;
                inner.counters.busy_ms += u64::try_from(self.work.as_millis()).unwrap_or(u64::MAX);
            }
            Err(_) => inner.counters.failed += 1,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.model.inner();
        inner.counters.in_flight -= 1;
        inner.counters.cancelled += u64::from(!self.ended);
    }
}

/// A request's time with the worker.
pub(crate) struct Turn {
    life: CancellationToken,
    ending: CancellationToken,
    work: Duration,
    pace: Pace,
    _worker: OwnedSemaphorePermit,
}

impl Turn {
    /// Does a share (0 to 1) of the work.
    pub(crate) async fn do_share(&self, share: f64) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = self.ending.cancelled() => Err(Failure::ending()),
            () = self.life.cancelled() => Err(Failure::worker_died()),
            () = tokio::time::sleep(self.pace.scaled(self.work.mul_f64(share))) => Ok(()),
        }
    }
}
