//! Supervision from outside: whatever dies is started afresh, after a growing delay, until shutdown.
//!
//! `actix::Supervisor` restarts after `ctx.stop()` but not after a panic, and keeps the old state. Here a factory makes
//! a new one each time. For an actor: give it a [`LifeLine`], and let the factory's future await the [`Death`].

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::retry_delay;

/// How fast something is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait before the first restart; doubles with each death in a row.
    pub delay_min: Duration,
    /// Longest wait.
    pub delay_max: Duration,
    /// A life at least this long ends the row: the next wait is `delay_min` again.
    pub stable_after: Duration,
}

impl Default for RestartPolicy {
    /// 100 ms doubling to 10 s, stable after a minute.
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(10),
            stable_after: Duration::from_secs(60),
        }
    }
}

/// Runs what `start` makes, and a fresh one each time it ends or panics, until `shutdown`; then drops it and returns.
///
/// `start` gets the number of the life, from 1. Each death is logged, and counted in `relay_restarts_total{name}`.
/// What is still inside an actor at shutdown is for its drain stage ([`crate::shutdown::Drain`]), not for this function.
pub async fn supervise<S, F>(name: &'static str, policy: RestartPolicy, shutdown: &CancellationToken, mut start: S)
where
    S: FnMut(u64) -> F,
    F: Future<Output = ()>,
{
    let mut deaths_in_a_row = 0_u32;
    for life in 1_u64.. {
        let born = Instant::now();
        // The factory runs inside the guarded future, so that its own panic counts as a death too.
        let run = AssertUnwindSafe(async { start(life).await }).catch_unwind();
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            end = run => end,
        };
        deaths_in_a_row = if born.elapsed() >= policy.stable_after { 1 } else { deaths_in_a_row.saturating_add(1) };
        let delay = retry_delay(deaths_in_a_row, policy.delay_min, policy.delay_max);
        let reason = end.err().map_or_else(|| "it ended".to_owned(), |panic| panic_words(&*panic));
        tracing::error!(name, life, ?delay, reason, "died, starting again");
        metrics::counter!("relay_restarts_total", "name" => name).increment(1);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// A panic's message, when it is a text.
pub(crate) fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no message"))
}

/// Held by an actor or a task as a field; dropped with it, also when a handler panics.
#[derive(Debug)]
pub struct LifeLine(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>);

/// Resolves when the [`LifeLine`] is dropped.
#[derive(Debug)]
pub struct Death(oneshot::Receiver<()>);

/// A life line and the future that resolves when it is gone.
pub fn life_line() -> (LifeLine, Death) {
    let (line, death) = oneshot::channel();
    (LifeLine(line), Death(death))
}

impl Future for Death {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}
