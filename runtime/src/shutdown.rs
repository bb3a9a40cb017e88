//! The end of a process: a signal becomes a token, the token starts the drain, the drain runs in order and in time.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::supervise::panic_words;

/// Exit code after a second SIGINT (128 + 2).
const EXIT_SIGINT: i32 = 130;
/// Exit code after a second SIGTERM (128 + 15).
const EXIT_SIGTERM: i32 = 143;

/// A token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once, with code 143 or 130.
///
/// The signals are read on a thread of their own, so that the second one works even when the main runtime hangs. Call it
/// once, and tell actix-web to leave signals alone (`HttpServer::disable_signals`).
///
/// # Errors
/// The thread or the signal handlers cannot be set up.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let (ready_tx, ready_rx) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready_tx.send(Err(error))),
        };
        runtime.block_on(async {
            match handlers() {
                Ok((term, int)) => {
                    drop(ready_tx.send(Ok(())));
                    watch(term, int, &cancel).await;
                }
                Err(error) => drop(ready_tx.send(Err(error))),
            }
        });
    })?;
    ready_rx.recv().map_err(std::io::Error::other)??;
    Ok(token)
}

fn handlers() -> std::io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

async fn watch(mut term: Signal, mut int: Signal, cancel: &CancellationToken) {
    let first = next(&mut term, &mut int).await;
    tracing::info!(signal = first.0, "shutting down; a second signal ends the process at once");
    cancel.cancel();
    let second = next(&mut term, &mut int).await;
    tracing::warn!(signal = second.0, "second signal, ending at once");
    std::process::exit(second.1);
}

async fn next(term: &mut Signal, int: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = term.recv() => ("SIGTERM", EXIT_SIGTERM),
        _ = int.recv() => ("SIGINT", EXIT_SIGINT),
    }
}

/// What to do, in order, before the process may go: not ready → sessions moved → intake paused → work finished → …
#[derive(Default)]
pub struct Drain<'a> {
    stages: Vec<Stage<'a>>,
}

struct Stage<'a> {
    name: &'static str,
    limit: Duration,
    work: Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// How one stage of a [`Drain`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageEnd {
    /// The stage's name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: StageOutcome,
}

/// What came of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageOutcome {
    /// Finished in time.
    Done,
    /// Cut off: its limit passed.
    TimedOut,
    /// Panicked, with these words.
    Panicked(String),
}

impl<'a> Drain<'a> {
    /// No stages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage that runs after those added before, for at most `limit`. It is polled only when its turn comes.
    #[must_use]
    pub fn stage(mut self, name: &'static str, limit: Duration, work: impl Future<Output = ()> + 'a) -> Self {
        self.stages.push(Stage { name, limit, work: Box::pin(work) });
        self
    }

    /// Runs the stages one after the other. A stage that passes its limit or panics is dropped and logged; the next one
    /// runs all the same, because what comes last (commit, flush) matters most.
    pub async fn run(self) -> Vec<StageEnd> {
        let mut ends = Vec::with_capacity(self.stages.len());
        for Stage { name, limit, work } in self.stages {
            let began = Instant::now();
            let outcome = match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
                Ok(Ok(())) => StageOutcome::Done,
                Ok(Err(panic)) => StageOutcome::Panicked(panic_words(&*panic)),
                Err(_) => StageOutcome::TimedOut,
            };
            let took = began.elapsed();
            match &outcome {
                StageOutcome::Done => tracing::info!(stage = name, ?took, "drain stage done"),
                StageOutcome::TimedOut => tracing::warn!(stage = name, ?limit, "drain stage timed out"),
                StageOutcome::Panicked(reason) => tracing::error!(stage = name, reason, "drain stage failed"),
            }
            ends.push(StageEnd { name, took, outcome });
        }
        ends
    }
}
