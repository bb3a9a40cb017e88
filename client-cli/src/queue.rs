//! A reader's look at a queue whose sender drops what does not fit.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::mpsc;

/// What a reader finds.
pub(crate) enum Look<T> {
    Item(T),
    /// Nothing, but there was something that did not fit.
    Lagging,
    /// Nothing more is sent.
    Closed,
}

/// Waits for an item, or for an empty queue of which its sender says in `lagging` that not everything fitted. Cancel-safe.
pub(crate) async fn look<T>(queue: &mut mpsc::Receiver<T>, lagging: &AtomicBool) -> Look<T> {
    // Never `try_recv`: while a sender is at work it blocks the thread, with the thread's own parker. A wake-up for whatever
    // else waits on that thread (a task that joins many handles, under `block_on`) would be lost with it.
    poll_fn(|context| match queue.poll_recv(context) {
        Poll::Ready(Some(item)) => Poll::Ready(Look::Item(item)),
        Poll::Ready(None) => Poll::Ready(Look::Closed),
        Poll::Pending if queue.is_empty() && lagging.load(Ordering::SeqCst) => Poll::Ready(Look::Lagging),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Sends `request`, which asks for what did not fit.
pub(crate) async fn ask_again<T>(requests: &mpsc::Sender<T>, lagging: &AtomicBool, request: T) {
    let room = requests.reserve().await;
    // Before the request, and without a wait between the two: once it is taken the flag may be set again, and neither word
    // may be lost, whenever this future is dropped.
    lagging.store(false, Ordering::SeqCst);
    // Whoever would take it has ended otherwise, and closes the queue.
    if let Ok(room) = room {
        room.send(request);
    }
}
