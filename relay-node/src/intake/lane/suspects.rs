//! Suspects whose turn is over make room for those that wait.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use relay_log::port::LogError;
use relay_protocol::record::StartedJob;
use tokio::time::Instant;

use super::{Key, Lane, tell};
use crate::intake::starts::Start;

/// Time between two looks at a suspect whose turn others wait for: turns may be short.
const LOOK: Duration = Duration::from_millis(5);
/// Wait before it is written again that a suspect is not the only one, if the log did not take it.
const WRITE_RETRY: Duration = Duration::from_millis(500);

/// A suspect that runs under an epoch is not the only one any more, durably.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct MadeRoom(Key, u64);

impl Lane {
    /// Lets the suspect that runs make room, if others wait for it and its turn is over.
    pub(super) fn make_room(&mut self, ctx: &mut Context<Self>) {
        let wanted = self.context.suspects.is_wanted();
        self.let_go(wanted, ctx);
        let in_the_way = self.core.suspects_in_the_way(wanted);
        if in_the_way.is_empty() {
            return;
        }
        let now = Instant::now();
        let leaves = in_the_way.into_iter().find_map(|(key, turn_ms)| {
            let running = self.runs.get(&key)?;
            let attempt = running.link.suspicion.leave_after(Duration::from_millis(turn_ms), now)?;
            Some((key, running, attempt))
        });
        let Some((key, running, attempt)) = leaves else { return self.look_again(ctx) };
        metrics::counter!("relay_suspects_made_room_total", "lane" => self.settings.lane.clone()).increment(1);
        let (link, epoch, starts, addr) =
            (running.link.clone(), running.epoch, self.context.starts.clone(), ctx.address());
        let job = StartedJob { offset: key.1, attempt, alone: false };
        actix::spawn(async move {
            // Whatever the log says now: while it is not written nobody else gets the place.
            while let Err(error) = starts.register(Start::of(key.0, job)).await {
                if matches!(error, LogError::Closed) {
                    return;
                }
                tracing::warn!(%error, partition = key.0, offset = key.1, "a suspect cannot make room, trying again");
                tokio::time::sleep(WRITE_RETRY).await;
            }
            link.suspicion.left();
            tell(&addr, MadeRoom(key, epoch)).await;
        });
    }

    /// Suspects that waited for their turn in vain have begun beside the others: the next ones wait for theirs now.
    fn let_go(&mut self, wanted: bool, ctx: &mut Context<Self>) {
        let is_beside =
            |key: &Key| self.runs.get(key).filter(|run| run.link.suspicion.is_beside()).map(|run| run.epoch);
        let in_the_way = self.core.suspects_in_the_way(wanted);
        let beside: Vec<_> = in_the_way.iter().filter_map(|(key, _)| Some((*key, is_beside(key)?))).collect();
        for (key, epoch) in beside {
            metrics::counter!("relay_suspects_beside_total", "lane" => self.settings.lane.clone()).increment(1);
            let effects = self.core.made_room(key, epoch, self.now_ms());
            self.carry_out(effects, ctx);
        }
    }

    fn look_again(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.looks_at_suspect, true) {
            ctx.run_later(LOOK, |lane, ctx| {
                lane.looks_at_suspect = false;
                lane.make_room(ctx);
            });
        }
    }
}

impl Handler<MadeRoom> for Lane {
    type Result = ();

    fn handle(&mut self, MadeRoom(key, epoch): MadeRoom, ctx: &mut Self::Context) {
        let effects = self.core.made_room(key, epoch, self.now_ms());
        self.carry_out(effects, ctx);
        self.make_room(ctx);
    }
}
