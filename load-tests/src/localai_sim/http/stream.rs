//! Streamed answers: their status is 200 before anything is known, and failures come inside.

use actix_web::HttpResponse;
use actix_web::http::header;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::failure::Failure;

/// Pieces of a stream that wait for a slow reader.
const PIECES_MAX: usize = 8;
/// The end of a stream.
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// Where a stream's writer puts its messages.
pub(super) struct Sink(mpsc::Sender<Bytes>);

impl Sink {
    /// One message. `false`: the reader is gone.
    pub(super) async fn message(&self, message: &Value) -> bool {
        self.0.send(Bytes::from(format!("data: {message}\n\n"))).await.is_ok()
    }

    /// Raw bytes. `false`: the reader is gone.
    pub(super) async fn bytes(&self, bytes: Bytes) -> bool {
        self.0.send(bytes).await.is_ok()
    }

    /// Returns once the reader is gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    /// Ends a stream of messages, after a failure if there was one.
    pub(super) async fn end(&self, outcome: Result<(), Failure>) {
        if let Err(failure) = outcome {
            self.bytes(failure.event()).await;
        }
        self.bytes(DONE).await;
    }
}

/// An answer that is written by `write`, which is dropped when the reader goes away.
pub(super) fn answer<F>(media_type: &'static str, write: impl FnOnce(Sink) -> F) -> HttpResponse
where
    F: Future<Output = ()> + 'static,
{
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let watch = Sink(sender.clone());
    let writer = write(Sink(sender));
    actix_web::rt::spawn(async move {
        tokio::select! {
            () = writer => {}
            () = watch.closed() => {}
        }
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (Ok::<_, actix_web::Error>(piece), receiver))
    });
    HttpResponse::Ok().content_type(media_type).insert_header((header::CACHE_CONTROL, "no-cache")).streaming(pieces)
}
