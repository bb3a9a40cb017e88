//! A job's events as server-sent events: `id` is the seq, so that a client goes on where it was, on any node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use relay_protocol::{ErrorCode, JobError, JobId};
use serde_json::json;
use tokio::sync::mpsc;

use super::answer::api_error;
use super::resumption::{self, Notice};
use crate::events::feed::{Delivery, Lagging, Past, Sink, What};
use crate::events::hub::{WatchGuard, WatchSpec};
use crate::events::order::{Delivered, Order};
use crate::events::route::RoutedEvent;
use crate::state::NodeState;

/// Events that may wait for one stream's socket.
const EVENTS_MAX: usize = 256;
/// Silence after which a comment is sent, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

struct Watch {
    node: Arc<NodeState>,
    tenant: Arc<str>,
    job_id: JobId,
    sink: Sink,
    events: mpsc::Receiver<Delivery>,
    order: Order,
    ready: VecDeque<Bytes>,
    guard: Option<WatchGuard>,
}

/// Streams what comes after `after_seq` (0: from the first event) and ends after the terminal event. Answers without a stream if
/// nothing is left to come.
///
/// # Errors
/// The job is unknown, or its past cannot be read now.
pub async fn stream(
    node: Arc<NodeState>,
    tenant: String,
    job_id: JobId,
    after_seq: u64,
) -> Result<HttpResponse, actix_web::Error> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let sink = Sink { events: sender, lagging: Lagging::default() };
    let mut watch = Watch {
        node,
        tenant: tenant.into(),
        job_id,
        sink,
        events,
        order: Order::after(after_seq),
        ready: VecDeque::new(),
        guard: None,
    };
    watch.begin(Past::Whole, false).await.map_err(|notice| api_error(&notice.error))?;
    match watch.notice(after_seq).await.map_err(|error| api_error(&error))? {
        None => {}
        Some(notice) if notice.goes_on => watch.ready.push_front(notice_frame(&notice)),
        Some(notice) => return without_stream(&notice),
    }
    let body = futures_util::stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(next), watch))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// The answer where no event will come.
fn without_stream(notice: &Notice) -> Result<HttpResponse, actix_web::Error> {
    match (notice.error.known_code(), &notice.status) {
        // A browser's EventSource that reads this does not connect again.
        (Some(ErrorCode::AlreadyEnded), _) => Ok(HttpResponse::NoContent().finish()),
        (_, Some(status)) => {
            let refusal = api_error(&notice.error);
            Ok(HttpResponseBuilder::new(refusal.status).json(json!({ "error": notice.error, "status": status })))
        }
        (_, None) => Err(api_error(&notice.error).into()),
    }
}

impl Watch {
    async fn begin(&mut self, past: Past, again: bool) -> Result<(), Notice> {
        let (job_id, tenant) = (self.job_id, self.tenant.clone());
        let spec = WatchSpec { job_id, tenant, past, after_seq: self.order.last_seq(), watch: 0, again };
        let not_begun = |error| Notice { error, retry_after_ms: None, goes_on: false, status: None };
        let hub = &self.node.online().map_err(not_begun)?.hub;
        self.guard = Some(hub.watch(spec, self.sink.clone()).await.map_err(Notice::not_begun)?);
        Ok(())
    }

    /// Waits until the past is read; `None` if there is nothing to say beside events.
    async fn notice(&mut self, after_seq: u64) -> Result<Option<Notice>, JobError> {
        loop {
            match self.delivery().await?.what {
                What::Reached(reached) => match resumption::of(reached, self.job_id) {
                    Ok(notice) => return Ok(notice),
                    Err(deleted) => return self.of_nothing(after_seq, deleted).await,
                },
                What::Event(event) => self.take(event),
                What::Wake => {}
            }
            self.catch_up().await.map_err(|notice| notice.error)?;
        }
    }

    async fn of_nothing(&mut self, after_seq: u64, deleted: bool) -> Result<Option<Notice>, JobError> {
        let wait_ms = resumption::receipt_wait_ms(self.job_id, self.node.clock.now_ms());
        if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(wait_ms), self.delivery()).await {
            if let What::Event(event) = delivery?.what {
                self.take(event);
            }
            return Ok(None);
        }
        let asked = (after_seq, after_seq > 0);
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
            Some((_, _, past)) => self.begin(past, true).await,
            None => Ok(()),
        }
    }

    fn take(&mut self, event: RoutedEvent) {
        match self.order.on(event) {
            Delivered::Nothing => {}
            Delivered::One(event) => self.ready.push_back(frame(&event)),
            Delivered::Two(receipt, event) => self.ready.extend([frame(&receipt), frame(&event)]),
        }
    }

    /// The next piece of the body; `None` after the terminal event, or when the node stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.order.has_ended() {
                return None;
            }
            let delivery = tokio::select! {
                biased;
                () = self.node.draining.cancelled() => return None,
                delivery = self.events.recv() => delivery?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            };
            if let What::Event(event) = delivery.what {
                self.take(event);
            }
            // Otherwise the client comes back with its last id.
            self.catch_up().await.ok()?;
        }
    }
}

fn frame(event: &RoutedEvent) -> Bytes {
    let mut out = format!("id: {}\nevent: {}\ndata: ", event.seq, event.kind.name()).into_bytes();
    out.extend_from_slice(&event.json);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// Has no id: the client goes on after the event that it had.
fn notice_frame(notice: &Notice) -> Bytes {
    format!("event: {}\ndata: {}\n\n", notice.error.code, json!({ "error": notice.error })).into()
}
