//! One watcher of one job, for answers over HTTP: the job's events in order, read from the log again where some did not fit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use relay_protocol::{ErrorCode, JobError, JobId};
use tokio::sync::mpsc;

use super::resumption::{self, Notice};
use crate::events::feed::{Delivery, Lagging, Past, Sink, What};
use crate::events::hub::{WatchGuard, WatchSpec};
use crate::events::order::{Delivered, Order};
use crate::events::route::RoutedEvent;
use crate::state::NodeState;

/// Events that may wait for one watcher.
const EVENTS_MAX: usize = 256;

/// A watcher; it watches from [`Watch::begin`] on, until it is dropped.
pub(super) struct Watch {
    node: Arc<NodeState>,
    tenant: Arc<str>,
    job_id: JobId,
    after_seq: u64,
    sink: Sink,
    events: mpsc::Receiver<Delivery>,
    order: Order,
    ready: VecDeque<RoutedEvent>,
    guard: Option<WatchGuard>,
}

/// What a watcher hears.
pub(super) enum Heard {
    /// The next event.
    Event(RoutedEvent),
    /// Nothing for as long as it wanted to know.
    Quiet,
}

impl Watch {
    /// Of what comes after `after_seq`; 0: from the first event on.
    pub(super) fn new(node: Arc<NodeState>, tenant: &str, job_id: JobId, after_seq: u64) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        Self {
            node,
            tenant: tenant.into(),
            job_id,
            after_seq,
            sink: Sink { events: sender, lagging: Lagging::default() },
            events,
            order: Order::after(after_seq),
            ready: VecDeque::new(),
            guard: None,
        }
    }

    /// Begins to watch, with so much of the job's past.
    ///
    /// # Errors
    /// Too many wait for a past, or the log cannot be read.
    pub(super) async fn begin(&mut self, past: Past) -> Result<(), Notice> {
        self.open(past, false).await
    }

    async fn open(&mut self, past: Past, again: bool) -> Result<(), Notice> {
        let (job_id, tenant) = (self.job_id, self.tenant.clone());
        let spec = WatchSpec { job_id, tenant, past, after_seq: self.order.last_seq(), watch: 0, again };
        let not_begun = |error| Notice { error, retry_after_ms: None, goes_on: false, status: None };
        let hub = &self.node.online().map_err(not_begun)?.hub;
        self.guard = Some(hub.watch(spec, self.sink.clone()).await.map_err(Notice::not_begun)?);
        Ok(())
    }

    /// Waits until the past is read; `None` if there is nothing to say beside events.
    ///
    /// # Errors
    /// The node stops, or the past cannot be read now.
    pub(super) async fn notice(&mut self) -> Result<Option<Notice>, JobError> {
        loop {
            match self.delivery().await?.what {
                What::Reached(reached) => match resumption::of(reached, self.job_id) {
                    Ok(notice) => return Ok(notice),
                    Err(deleted) => return self.of_nothing(deleted).await,
                },
                What::Event(event) => self.take(event),
                What::Wake => {}
            }
            self.catch_up().await.map_err(|notice| notice.error)?;
        }
    }

    async fn of_nothing(&mut self, deleted: bool) -> Result<Option<Notice>, JobError> {
        let wait_ms = resumption::receipt_wait_ms(self.job_id, self.node.clock.now_ms());
        if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(wait_ms), self.delivery()).await {
            if let What::Event(event) = delivery?.what {
                self.take(event);
            }
            return Ok(None);
        }
        let asked = (self.after_seq, self.after_seq > 0);
        Ok(Some(resumption::of_nothing(&self.node, &self.tenant, self.job_id, asked, deleted).await))
    }

    async fn delivery(&mut self) -> Result<Delivery, JobError> {
        let gone = || JobError::new(ErrorCode::Draining, "the node is going down: use another");
        tokio::select! {
            delivery = self.events.recv() => delivery.ok_or_else(gone),
            () = self.node.draining.cancelled() => Err(gone()),
        }
    }

    /// Watches again if events did not fit.
    async fn catch_up(&mut self) -> Result<(), Notice> {
        match self.sink.lagging.take().pop() {
            Some((_, _, past)) => self.open(past, true).await,
            None => Ok(()),
        }
    }

    fn take(&mut self, event: RoutedEvent) {
        match self.order.on(event) {
            Delivered::Nothing => {}
            Delivered::One(event) => self.ready.push_back(event),
            Delivered::Two(receipt, event) => self.ready.extend([receipt, event]),
        }
    }

    /// The next event, or that none came for so long; `None` after the terminal event, when the node stops, and when the log cannot
    /// be read: whoever asks again goes on where this one was.
    pub(super) async fn next(&mut self, quiet: Duration) -> Option<Heard> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Heard::Event(event));
            }
            if self.order.has_ended() {
                return None;
            }
            let delivery = tokio::select! {
                biased;
                () = self.node.draining.cancelled() => return None,
                delivery = self.events.recv() => delivery?,
                () = tokio::time::sleep(quiet) => return Some(Heard::Quiet),
            };
            if let What::Event(event) = delivery.what {
                self.take(event);
            }
            self.catch_up().await.ok()?;
        }
    }
}
