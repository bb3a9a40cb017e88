//! The sessions of a node that goes down: each is told another node, so that its client goes on there before this one is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use relay_protocol::cluster::Placement;
use relay_protocol::hello::MovedV1;
use tokio::time::timeout;

use super::sessions::SessionFacts;
use crate::cluster::link::CoordinatorLink;
use crate::state::NodeState;

/// Sessions that were told where to go on and have not left yet: no more come to the other nodes at once.
const MOVES_MAX: usize = 64;
/// How long a session that was told may take to leave before the next one is told, in its place.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// Questions to the coordinator about one session, and the time between two.
const TRIES_MAX: u32 = 3;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Why, in words.
const REASON: &str = "the node is going down";

/// Why a session is not told where to go on.
enum Nowhere {
    /// No other node takes sessions, or no coordinator answers: the same for all.
    ForAll,
    /// This time.
    ForNow,
}

/// Tells each session another node and waits until its client has left. Sessions that stay, or for which there is no other node, are
/// left as they are. To be called once [`NodeState::leaving`] is cancelled.
pub async fn move_sessions(node: &NodeState) {
    let Some(link) = &node.coordinator else { return };
    let sessions = node.sessions.all();
    if sessions.is_empty() {
        return;
    }
    // Else this node would be named.
    link.beat_now().await;
    let is_over = AtomicBool::new(false);
    let (link, is_over) = (link, &is_over);
    futures_util::stream::iter(sessions)
        .for_each_concurrent(MOVES_MAX, |session| async move {
            let outcome =
                if is_over.load(Ordering::Relaxed) { "nowhere" } else { one(node, link, &session, is_over).await };
            metrics::counter!("relay_sessions_moved_total", "outcome" => outcome).increment(1);
        })
        .await;
}

/// Moves one session; what became of it.
async fn one(
    node: &NodeState,
    link: &CoordinatorLink,
    session: &Arc<SessionFacts>,
    is_over: &AtomicBool,
) -> &'static str {
    for _ in 0..TRIES_MAX {
        if session.moves.is_closed() {
            return "left_before";
        }
        match place(node, link).await {
            Ok(placed) => {
                session.moves.send_replace(Some(MovedV1 { url: placed.url, reason: REASON.to_owned() }));
                let left = timeout(LEAVES_WITHIN, session.moves.closed()).await;
                return if left.is_ok() { "left" } else { "stayed" };
            }
            Err(Nowhere::ForAll) => {
                is_over.store(true, Ordering::Relaxed);
                return "nowhere";
            }
            Err(Nowhere::ForNow) => tokio::time::sleep(TRY_AGAIN_AFTER).await,
        }
    }
    "nowhere"
}

/// Another node.
async fn place(node: &NodeState, link: &CoordinatorLink) -> Result<Placement, Nowhere> {
    let answer = link.get("/v1/placement").await.map_err(|_| Nowhere::ForAll)?;
    match answer.status {
        200 => {
            let placed: Placement = serde_json::from_slice(&answer.body).map_err(|_| Nowhere::ForAll)?;
            // A new leader may not have heard that this node goes.
            if placed.node == node.name { Err(Nowhere::ForNow) } else { Ok(placed) }
        }
        // The registry has much to do.
        429 => Err(Nowhere::ForNow),
        _ => Err(Nowhere::ForAll),
    }
}
