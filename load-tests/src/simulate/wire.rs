//! The network between a simulated node and the coordinators: slow, lossy, cut. What was sent arrives whether or not its sender still waits.

use std::sync::Arc;
use std::time::Duration;

use actix_web::ResponseError;
use actix_web::body::MessageBody;
use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use coordinator::http::refusal;
use coordinator::registry::core::Sender;
use relay_node::cluster::wire::{Question, Wire};
use relay_runtime::random::{Random, SeededRandom};
use tokio::sync::oneshot;

use super::coordinators::{Coordinators, Reached};
use super::gate::{Gate, Life};

/// The way from one life of a node.
pub(super) struct SimWire {
    coordinators: Arc<Coordinators>,
    gate: Arc<Gate>,
    random: SeededRandom,
}

impl SimWire {
    /// A way from the node behind `gate`.
    pub(super) fn new(coordinators: Arc<Coordinators>, gate: Arc<Gate>, seed: u64) -> Self {
        Self { coordinators, gate, random: SeededRandom::new(seed) }
    }

    async fn travel(&self) {
        // Longer than a time-out now and then, and never so long that one overtakes a later one by more than the leader reckons with.
        tokio::time::sleep(Duration::from_millis(
            1 + self.random.below(if self.random.below(20) == 0 { 200 } else { 10 }),
        ))
        .await;
        if self.gate.is_off_coordinators() || self.random.below(100) == 0 {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Wire for SimWire {
    async fn ask(&self, question: Question) -> anyhow::Result<(u16, Bytes)> {
        let timeout = question.timeout;
        let exchange = async {
            self.travel().await;
            let life = self.coordinators.at(&question.url).filter(|life| life.gate.life() != Life::Dead);
            let life = life.context("simulated: nobody listens there")?;
            let (answer, answered) = oneshot::channel();
            tokio::spawn(async move { drop(answer.send(handle(life, question).await)) });
            let answer = answered.await?.context("simulated: it died before it answered")?;
            self.travel().await;
            anyhow::Ok(answer)
        };
        tokio::time::timeout(timeout, exchange).await.context("simulated: no answer in time")?
    }
}

/// What a coordinator answers; `None` if it dies before.
async fn handle(life: Reached, question: Question) -> Option<(u16, Bytes)> {
    // What reaches one that stands still lies in its sockets.
    while life.gate.life() == Life::Frozen {
        life.gate.changed(Life::Frozen).await;
    }
    if question.path_and_query != "/v1/heartbeat" {
        return Some((404, Bytes::new()));
    }
    let beat = serde_json::from_slice(&question.body?).ok()?;
    let answer = life.registry.heartbeat(beat, Sender::default()).await;
    if life.gate.life() == Life::Dead {
        return None;
    }
    match answer {
        Ok(reply) => Some((200, serde_json::to_vec(&reply).ok()?.into())),
        Err(error) => {
            let response = refusal(error).error_response();
            let status = response.status().as_u16();
            Some((status, response.into_body().try_into_bytes().unwrap_or_default()))
        }
    }
}
