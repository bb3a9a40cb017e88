//! What a session looks at next: requests and events take turns in being first, so that neither keeps the other waiting for
//! ever, and chance has no part in it.

use actix_ws::{AggregatedMessage, ProtocolError};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::events::feed::Delivery;
use crate::gateway::connect::Messages;

/// What came.
pub(super) enum Came {
    /// A message of the client; `None` when it is gone.
    Message(Option<Result<AggregatedMessage, ProtocolError>>),
    /// Something of a job that the session watches.
    Delivery(Delivery),
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    events_first: bool,
}

impl Turns {
    /// Waits for what comes next. Cancel safe.
    pub(super) async fn next(&self, stream: &mut Messages, events: &mut mpsc::Receiver<Delivery>) -> Came {
        if self.events_first {
            tokio::select! {
                biased;
                Some(first) = events.recv() => Came::Delivery(first),
                message = stream.next() => Came::Message(message),
            }
        } else {
            tokio::select! {
                biased;
                message = stream.next() => Came::Message(message),
                Some(first) = events.recv() => Came::Delivery(first),
            }
        }
    }

    /// The other one is first from now on.
    pub(super) fn pass(&mut self) {
        self.events_first = !self.events_first;
    }
}
