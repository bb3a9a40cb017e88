//! A job's events as server-sent events: `id` is the seq, so that a client goes on where it was, on any node.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use relay_protocol::{ErrorCode, JobId};
use serde_json::json;

use super::answer::api_error;
use super::resumption::Notice;
use super::watch::{Heard, Watch};
use crate::events::feed::Past;
use crate::events::route::RoutedEvent;
use crate::state::NodeState;

/// Silence after which a comment is sent, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

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
    let mut watch = Watch::new(node, &tenant, job_id, after_seq);
    watch.begin(Past::Whole).await.map_err(|notice| api_error(&notice.error))?;
    let first = match watch.notice().await.map_err(|error| api_error(&error))? {
        None => None,
        Some(notice) if notice.goes_on => Some(notice_frame(&notice)),
        Some(notice) => return without_stream(&notice),
    };
    let body = futures_util::stream::unfold((first, watch), |(first, mut watch)| async move {
        let piece = match first {
            Some(first) => first,
            None => match watch.next(KEEP_ALIVE).await? {
                Heard::Event(event) => frame(&event),
                Heard::Quiet => Bytes::from_static(b": keep-alive\n\n"),
            },
        };
        Some((Ok::<Bytes, std::convert::Infallible>(piece), (None, watch)))
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
