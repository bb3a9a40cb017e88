//! Redrives letters: the job of each is submitted anew, once, whatever fails and whoever asks at the same time.
//!
//! Claim (a `redriving` mark, read back: the first one decides the new job's id), submit through the gateway's one way in,
//! `redriven` mark. A redrive that was cut off is brought to its end by the next one, under the same id.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use relay_protocol::dead_letter::{LetterId, LetterOutcome, LetterResult, LetterState, Mark, MarkKind};
use relay_protocol::{ErrorCode, JobError, JobId};
use relay_runtime::auth::Identity;

use super::look::{Found, Look, Reading};
use super::marks::CLAIM_USE_MS_MAX;
use super::prepare::{self, Prepared};
use super::results::{Results, told};
use super::write::{self, mark};
use crate::audit::Actor;
use crate::gateway::submit;
use crate::state::{NodeState, Online};

/// Redrives the letters of one request.
pub struct Redrive<'a> {
    /// The node.
    pub node: &'a NodeState,
    /// What of it needs the log.
    pub online: &'a Online,
    /// Who asks.
    pub identity: &'a Identity,
    /// Where the letters were read.
    pub reading: &'a Reading<'a>,
}

/// A letter on its way to its new job.
struct Claim {
    index: usize,
    prepared: Prepared,
    job_id: JobId,
    offset: u64,
}

/// What is to be done about a letter.
enum Plan {
    /// Its job was submitted before: only the mark is missing.
    Submitted(JobId),
    /// It is to be claimed for this job id.
    Claim(Box<Prepared>, JobId),
}

impl Redrive<'_> {
    /// Redrives every letter of `look`; with `dry_run` only tells what would happen. One result for each, in order.
    pub async fn all(&self, look: &mut Look, dry_run: bool) -> Vec<LetterResult> {
        let (mut results, mut plans) = (Results::new(), Vec::new());
        for (index, found) in look.found.iter().enumerate() {
            match self.plan(found).await {
                Ok(plan) => plans.push((index, plan)),
                Err(error) => _ = results.insert(index, Err(error)),
            }
        }
        if dry_run {
            let would = LetterOutcome::WouldRedrive;
            results.extend(plans.into_iter().map(|(index, plan)| match plan {
                Plan::Submitted(job_id) => (index, Ok(Some(job_id))),
                Plan::Claim(..) => (index, Ok(None)),
            }));
            return told(look, results, would);
        }
        self.carry_out(look, plans, &mut results).await;
        told(look, results, LetterOutcome::Redriven)
    }

    async fn plan(&self, found: &Found) -> Result<Plan, JobError> {
        let now_ms = self.node.clock.now_ms();
        let fresh = JobId::new(now_ms, self.online.reply_partition, self.node.random.next_u64());
        let job_id = found.marks.job_to_claim(fresh).ok_or_else(|| prepare::closed(found))?;
        let prepared = prepare::repeat(&found.dead, self.identity, now_ms)?;
        if found.marks.state() == LetterState::Redriving && self.is_submitted(&prepared, job_id, now_ms).await? {
            return Ok(Plan::Submitted(job_id));
        }
        prepare::check_marks(found, self.node.settings.dlq.marks_max)?;
        prepare::check(self.node, self.online, &prepared, job_id).await?;
        Ok(Plan::Claim(Box::new(prepared), job_id))
    }

    /// Whether the job of an earlier redrive is there. One that is so old that its end may be forgotten is left alone: to
    /// submit it again could be to run it twice.
    async fn is_submitted(&self, prepared: &Prepared, job_id: JobId, now_ms: u64) -> Result<bool, JobError> {
        let past = self.online.hub.past(job_id, &prepared.job.tenant).await.map_err(submit::log_error)?;
        if !past.is_empty() {
            return Ok(true);
        }
        let window_ms = self.node.settings.dedup.window().as_millis() as u64;
        if job_id.made_at_ms().is_some_and(|made| made.saturating_add(window_ms) > now_ms) {
            return Ok(false);
        }
        let message = format!(
            "a redrive as job {job_id} was cut off so long ago that nobody knows whether it ran: submit the job again"
        );
        Err(JobError::new(ErrorCode::LetterClosed, message))
    }

    async fn carry_out(&self, look: &mut Look, plans: Vec<(usize, Plan)>, results: &mut Results) {
        let (mut submitted, mut wanted) = (Vec::new(), Vec::new());
        for (index, plan) in plans {
            match plan {
                Plan::Submitted(job_id) => submitted.push((index, job_id)),
                Plan::Claim(prepared, job_id) => wanted.push((index, prepared, job_id)),
            }
        }
        let claimed_at = Instant::now();
        let indices: Vec<usize> = wanted.iter().map(|(index, ..)| *index).collect();
        let mut releases = Vec::new();
        match self.claim(look, wanted).await {
            Err(error) => results.extend(indices.into_iter().map(|index| (index, Err(error.clone())))),
            Ok(claims) => {
                for claim in claims {
                    let Some(found) = look.found.get(claim.index) else { continue };
                    let index = claim.index;
                    match self.submit(found, claim, claimed_at, &mut releases).await {
                        Ok(job_id) => submitted.push((index, job_id)),
                        Err(error) => _ = results.insert(index, Err(error)),
                    }
                }
            }
        }
        self.finish(look, &submitted, releases).await;
        results.extend(submitted.into_iter().map(|(index, job_id)| (index, Ok(Some(job_id)))));
    }

    /// Claims letters and reads back what came of it.
    async fn claim(&self, look: &mut Look, wanted: Vec<(usize, Box<Prepared>, JobId)>) -> Result<Vec<Claim>, JobError> {
        let now_ms = self.node.clock.now_ms();
        let (mut marks, mut claims) = (Vec::new(), Vec::new());
        for (index, prepared, job_id) in wanted {
            let Some(found) = look.found.get(index) else { continue };
            marks.push(self.mark(found, MarkKind::Redriving, Some(job_id), now_ms));
            claims.push(Claim { index, prepared: *prepared, job_id, offset: 0 });
        }
        let offsets = write::append(self.reading.log, &marks).await?;
        let mut until = BTreeMap::<u32, u64>::new();
        for (claim, ((letter, _), offset)) in claims.iter_mut().zip(marks.iter().zip(offsets)) {
            claim.offset = offset;
            let last = until.entry(letter.partition).or_default();
            *last = offset.max(*last);
        }
        self.reading.catch_up(look, &until).await?;
        Ok(claims)
    }

    /// Submits the job of a claim that counts; a refused one is put on the list to be released.
    async fn submit(
        &self,
        found: &Found,
        claim: Claim,
        claimed_at: Instant,
        releases: &mut Vec<(LetterId, Mark)>,
    ) -> Result<JobId, JobError> {
        let Claim { mut prepared, job_id, offset, .. } = claim;
        if !found.marks.is_claimed(offset, job_id) {
            return Err(prepare::closed(found));
        }
        if claimed_at.elapsed() > Duration::from_millis(CLAIM_USE_MS_MAX) {
            let message = "the redrive took too long and was given up: redrive the letter again";
            return Err(JobError::new(ErrorCode::LogUnavailable, message));
        }
        prepared.job.id = Some(job_id);
        match submit::accept(self.node, &prepared.lane, prepared.job, "redrive").await {
            Ok(accepted) => Ok(accepted.job_id),
            Err(error) => {
                if submit::was_refused(&error) {
                    let now_ms = self.node.clock.now_ms();
                    let mut release = self.mark(found, MarkKind::Released, Some(job_id), now_ms);
                    release.1.claim = Some(offset);
                    releases.push(release);
                }
                Err(prepare::media_gone(error))
            }
        }
    }

    /// Says what came of the claims. What cannot be said now is found out by the next redrive of the letter.
    async fn finish(&self, look: &Look, submitted: &[(usize, JobId)], releases: Vec<(LetterId, Mark)>) {
        let (mut marks, now_ms) = (releases, self.node.clock.now_ms());
        for (index, job_id) in submitted {
            let Some(found) = look.found.get(*index) else { continue };
            marks.push(self.mark(found, MarkKind::Redriven, Some(*job_id), now_ms));
            let actor = Actor {
                tenant: found.dead.tenant.as_deref().unwrap_or(&self.identity.tenant),
                subject: &self.identity.subject,
            };
            let detail = serde_json::json!({ "letter": found.dead.id, "redriven_as": job_id });
            self.online.audit.letter("redriven", actor, found.dead.job_id, detail);
            metrics::counter!("relay_dlq_redriven_total").increment(1);
        }
        if let Err(error) = write::append(self.reading.log, &marks).await {
            tracing::warn!(%error, letters = marks.len(), "marks on dead letters were not written");
        }
    }

    fn mark(&self, found: &Found, kind: MarkKind, job_id: Option<JobId>, now_ms: u64) -> (LetterId, Mark) {
        let (letter, marked) = mark(found.dead.id, kind, &self.identity.subject, now_ms);
        (letter, Mark { job_id, ..marked })
    }
}
