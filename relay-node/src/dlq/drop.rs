//! Drops letters: nobody wants them any more. They stay in the topic until its retention takes them.

use std::collections::BTreeMap;

use relay_protocol::JobError;
use relay_protocol::dead_letter::{LetterOutcome, LetterResult, MarkKind};
use relay_runtime::auth::Identity;

use super::look::{Found, Look, Reading};
use super::prepare;
use super::results::{Results, told};
use super::write::{self, mark};
use crate::audit::Actor;
use crate::state::{NodeState, Online};

/// Drops the letters of one request.
pub struct DropLetters<'a> {
    /// The node.
    pub node: &'a NodeState,
    /// What of it needs the log.
    pub online: &'a Online,
    /// Who asks.
    pub identity: &'a Identity,
    /// Where the letters were read.
    pub reading: &'a Reading<'a>,
}

impl DropLetters<'_> {
    /// Drops every letter of `look`; with `dry_run` only tells what would happen. One result for each, in order.
    pub async fn all(&self, look: &mut Look, dry_run: bool) -> Vec<LetterResult> {
        let now_ms = self.node.clock.now_ms();
        let mut results = Results::new();
        let mut wanted = Vec::new();
        for (index, found) in look.found.iter().enumerate() {
            match self.check(found, now_ms) {
                Ok(()) if dry_run => _ = results.insert(index, Ok(None)),
                Ok(()) => wanted.push(index),
                Err(error) => _ = results.insert(index, Err(error)),
            }
        }
        if dry_run {
            return told(look, results, LetterOutcome::WouldDrop);
        }
        match self.carry_out(look, &wanted, now_ms).await {
            Err(error) => results.extend(wanted.into_iter().map(|index| (index, Err(error.clone())))),
            Ok(dropped) => results.extend(dropped),
        }
        told(look, results, LetterOutcome::Dropped)
    }

    fn check(&self, found: &Found, now_ms: u64) -> Result<(), JobError> {
        if !found.marks.can_be_dropped(now_ms) {
            return Err(prepare::closed(found));
        }
        prepare::check_marks(found, self.node.settings.dlq.marks_max)
    }

    async fn carry_out(&self, look: &mut Look, wanted: &[usize], now_ms: u64) -> Result<Results, JobError> {
        let letters: Vec<_> =
            wanted.iter().filter_map(|index| look.found.get(*index)).map(|found| found.dead.id).collect();
        let subject = &self.identity.subject;
        let marks: Vec<_> = letters.iter().map(|letter| mark(*letter, MarkKind::Dropped, subject, now_ms)).collect();
        let offsets = write::append(self.reading.log, &marks).await?;
        let mut until = BTreeMap::<u32, u64>::new();
        for (letter, offset) in letters.iter().zip(&offsets) {
            let last = until.entry(letter.partition).or_default();
            *last = (*last).max(*offset);
        }
        self.reading.catch_up(look, &until).await?;
        let dropped = wanted.iter().zip(offsets).filter_map(|(index, offset)| {
            let found = look.found.get(*index)?;
            Some((*index, self.outcome(found, offset).map(|()| None)))
        });
        Ok(dropped.collect())
    }

    /// Whether the mark at `offset` dropped the letter: another may have come first.
    fn outcome(&self, found: &Found, offset: u64) -> Result<(), JobError> {
        if !found.marks.was_dropped_by(offset) {
            return Err(prepare::closed(found));
        }
        let tenant = found.dead.tenant.as_deref().unwrap_or(&self.identity.tenant);
        let actor = Actor { tenant, subject: &self.identity.subject };
        let detail = serde_json::json!({ "letter": found.dead.id });
        self.online.audit.letter("dropped", actor, found.dead.job_id, detail);
        metrics::counter!("relay_dlq_dropped_total").increment(1);
        Ok(())
    }
}
