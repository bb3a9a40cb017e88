//! A job's events as server-sent events: `id` is the seq, so that a client goes on where it was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;
use relay_protocol::{JobError, JobId};
use tokio::sync::mpsc;

use super::submit::log_error;
use crate::events::feed::{Lagging, Past, Sink};
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
    events: mpsc::Receiver<RoutedEvent>,
    order: Order,
    ready: VecDeque<Bytes>,
    guard: Option<WatchGuard>,
}

/// Streams what comes after `after_seq` (0: from the first event) and ends after the terminal event.
///
/// # Errors
/// The log cannot be read now.
pub async fn stream(
    node: Arc<NodeState>,
    tenant: String,
    job_id: JobId,
    after_seq: u64,
) -> Result<HttpResponse, JobError> {
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
    watch.begin(Past::Whole).await?;
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

impl Watch {
    async fn begin(&mut self, past: Past) -> Result<(), JobError> {
        let spec = WatchSpec { job_id: self.job_id, tenant: self.tenant.clone(), past };
        let guard = self.node.online()?.hub.watch(spec, self.sink.clone()).await.map_err(log_error)?;
        self.guard = Some(guard);
        Ok(())
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
            let event = tokio::select! {
                biased;
                () = self.node.draining.cancelled() => return None,
                event = self.events.recv() => event?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": keep-alive\n\n")),
            };
            match self.order.on(event) {
                Delivered::Nothing => {}
                Delivered::One(event) => self.ready.push_back(frame(&event)),
                Delivered::Two(receipt, event) => self.ready.extend([frame(&receipt), frame(&event)]),
            }
            if let Some((_, past)) = self.sink.lagging.take().pop()
                && self.begin(past).await.is_err()
            {
                // The client comes back with its last id.
                return None;
            }
        }
    }
}

fn frame(event: &RoutedEvent) -> Bytes {
    let mut out = format!("id: {}\nevent: {}\ndata: ", event.seq, event.kind.name()).into_bytes();
    out.extend_from_slice(&event.json);
    out.extend_from_slice(b"\n\n");
    out.into()
}
