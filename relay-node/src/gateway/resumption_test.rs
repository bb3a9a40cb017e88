//! What is told of which past.

use relay_protocol::ErrorCode::{AlreadyEnded, ResumeExpired, TooManyRequests};

use super::*;
use crate::events::route::RoutedEvent;

fn job() -> JobId {
    JobId::new(1_700_000_000_000, 3, 42)
}

fn end() -> RoutedEvent {
    let event = Event::new(job(), 2, TERMINAL_N, EventKind::Completed, 5);
    let json = serde_json::to_vec(&event).unwrap().into();
    RoutedEvent { job_id: job(), seq: event.seq, kind: event.event, json }
}

#[test]
fn only_a_whole_past_needs_no_word() {
    assert_eq!(of(Reached::Whole, job()), Ok(None));
    let part = of(Reached::Part, job()).unwrap().unwrap();
    assert_eq!((part.error.known_code(), part.goes_on), (Some(ResumeExpired), true));
    let ended = of(Reached::Ended(end()), job()).unwrap().unwrap();
    assert_eq!((ended.error.known_code(), ended.goes_on), (Some(AlreadyEnded), false));
    assert_eq!(ended.status.unwrap().state, "completed");
    assert_eq!(of(Reached::Nothing { deleted: true }, job()), Err(true));
    let busy = Notice::not_begun(CatchUpError::Full);
    assert_eq!((busy.error.known_code(), busy.retry_after_ms), (Some(TooManyRequests), Some(1_000)));
    assert!(busy.error.retryable && !busy.goes_on);
}

#[test]
fn only_a_new_jobs_receipt_is_waited_for() {
    let made = 1_700_000_000_000;
    assert!(receipt_wait_ms(job(), made + 4_999) > 0);
    assert_eq!(receipt_wait_ms(job(), made + 5_000), 0);
}

#[test]
fn the_views_row_tells_a_state() {
    let row = serde_json::json!({
        "job_id": job(), "tenant": "t", "state": "failed", "attempt": 2, "updated_at": "2026-11-23T18:30:00.000Z",
        "error": { "code": "backend_rejected", "message": "no", "retryable": false }, "backend": "b", "node": null,
        "redrive_of": null, "duplicate_of": null, "lane": "default",
    });
    let status = status_of(job(), serde_json::from_value(row).unwrap());
    assert_eq!((status.state.as_str(), status.last.event), ("failed", EventKind::Failed));
    assert_eq!(status.last.seq, seq(2, TERMINAL_N));
    assert_eq!(status.last.error.unwrap().code, "backend_rejected");
}
