//! Commits of a lane: what ends together is one transaction, and a transaction of unknown fate is looked up.

use std::collections::HashMap;

use actix::{AsyncContext, Context};
use relay_log::planted::{Bug, is_planted};
use relay_log::port::{CommitError, CommitOffset, Committed, Log, NewRecord};
use relay_protocol::record::AuditEntry;

use super::{COMMIT_RETRY, Fate, Lane, Payload, Settled, tell};
use crate::intake::core::{Batch, Core};
use crate::intake::decided;

impl Lane {
    pub(super) fn commit(&mut self, mut batch: Batch<Payload>, ctx: &Context<Self>) {
        let (member, log, addr) = (self.member.clone(), self.context.log.clone(), ctx.address());
        let (group, hub) = (self.settings.group.clone(), self.context.hub.clone());
        let payloads = || {
            let aside = batch.aside.iter().map(|(_, _, payload)| payload);
            batch.jobs.iter().map(|(_, _, payload)| payload).chain(aside)
        };
        let mut records: Vec<NewRecord> = payloads().flat_map(|payload| payload.records.iter().cloned()).collect();
        let audit: Vec<AuditEntry> = payloads().filter_map(|payload| payload.audit.clone()).collect();
        if !audit.is_empty() {
            records.push(self.context.audit.record(&audit));
        }
        actix::spawn(async move {
            let commit = relay_log::port::Commit { records, offsets: batch.offsets.clone() };
            let began = tokio::time::Instant::now();
            let fate = match crate::planted::commit(&*member, &*log, commit).await {
                Ok(()) => Fate::Committed,
                Err(error) => not_committed(&*log, &group, &batch, error).await,
            };
            let took = began.elapsed();
            metrics::histogram!("relay_commit_seconds").record(took.as_secs_f64());
            if matches!(fate, Fate::Committed) {
                for (_, _, payload) in &mut batch.jobs {
                    if let Some((tenant, event)) = payload.tell_here.take() {
                        hub.deliver_here(&tenant, [event]).await;
                    }
                }
            }
            tell(&addr, Settled { batch, fate, took }).await;
        });
    }
}

/// What a failed commit means for its batch.
async fn not_committed(log: &dyn Log, group: &str, batch: &Batch<Payload>, error: CommitError) -> Fate {
    tracing::warn!(%error, jobs = batch.jobs.len(), "a commit did not succeed");
    metrics::counter!("relay_commits_failed_total").increment(1);
    match error {
        CommitError::NotOwner(partitions) => Fate::NotCommitted(partitions.iter().map(|at| at.partition).collect()),
        CommitError::Fenced | CommitError::InDoubt(_) => {
            if is_planted(Bug::DoubtIsDone) || did_happen(log, group, batch).await {
                Fate::Committed
            } else {
                Fate::NotCommitted(Vec::new())
            }
        }
        _ => {
            tokio::time::sleep(COMMIT_RETRY).await;
            Fate::NotCommitted(Vec::new())
        }
    }
}

/// Whether a commit of unknown fate happened. Its records tell: brokers have kept the offsets of a transaction whose records they
/// dropped. Offsets that are behind their records come with the next commit.
async fn did_happen(log: &dyn Log, group: &str, batch: &Batch<Payload>) -> bool {
    // Waits until the transaction is over at the offsets.
    let by_offsets = Core::was_committed(batch, &read_committed(log, group, &batch.offsets).await);
    if is_planted(Bug::OffsetsProve) {
        return by_offsets;
    }
    let payloads = batch.jobs.iter().map(|(_, _, payload)| payload);
    let payloads = payloads.chain(batch.aside.iter().map(|(_, _, payload)| payload));
    let by_records = decided::happened(log, payloads.flat_map(|payload| &payload.records)).await;
    if by_records.is_some_and(|happened| happened != by_offsets) {
        tracing::warn!(?by_records, by_offsets, "a transaction happened in part; its records decide");
        metrics::counter!("relay_commits_split_total").increment(1);
    }
    by_records.unwrap_or(by_offsets)
}

async fn read_committed(log: &dyn Log, group: &str, offsets: &[CommitOffset]) -> HashMap<u32, Committed> {
    let mut found = HashMap::new();
    for offset in offsets {
        loop {
            match log.committed(group, &offset.at).await {
                Ok(committed) => {
                    found.extend(committed.map(|committed| (offset.at.partition, committed)));
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "what was committed cannot be read, trying again");
                    tokio::time::sleep(COMMIT_RETRY).await;
                }
            }
        }
    }
    found
}
