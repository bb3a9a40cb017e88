//! Commits without a pause while members come and go: the broker refuses those of an old generation, and a rebalance must not wait
//! for whoever tries again at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_log::port::{Assignment, Commit, CommitError, Log, Member, MemberEvent, Start, Topic};
use tokio::sync::watch;

use crate::support::*;

/// A rebalance takes a heartbeat and the round trips; the rest is for a slow machine.
const REBALANCED_WITHIN: Duration = Duration::from_secs(20);

/// How often a second member comes and goes.
const ROUNDS: usize = 4;

/// Commits results for partition 0 for as long as it has it, back to back; how many succeeded, and how many were aborted.
async fn commit_hot(
    member: Arc<dyn Member>,
    results: Topic,
    mut owned: watch::Receiver<Option<Assignment>>,
) -> anyhow::Result<(u64, usize)> {
    let (mut done, mut aborted) = (0_u64, 0_usize);
    loop {
        let Some(assignment) = owned.borrow_and_update().clone() else {
            if owned.changed().await.is_err() {
                return Ok((done, aborted));
            }
            continue;
        };
        let records = vec![record(&results, 0, &done.to_string())];
        match member.commit(Commit { records, offsets: vec![offset(&assignment, done + 1, "")] }).await {
            Ok(()) => done += 1,
            Err(CommitError::Aborted(_)) => aborted += 1,
            Err(CommitError::NotOwner(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
        if owned.has_changed().is_err() {
            return Ok((done, aborted));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_back_to_back_starve_no_rebalance_and_each_counts_once() -> anyhow::Result<()> {
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 2).await?, topic(&log, "results", 1).await?);
    let group = unique("group");
    let first = log.join(join_spec(&group, &[&jobs], &unique("first"))).await?;
    let (own, owned) = watch::channel(None);
    let committing = tokio::spawn(commit_hot(Arc::clone(&first), Arc::clone(&results), owned));
    let polling = tokio::spawn({
        let first = Arc::clone(&first);
        async move {
            loop {
                match first.next().await {
                    Ok(MemberEvent::Assigned(list)) => {
                        let zero = list.into_iter().find(|assignment| assignment.at.partition == 0);
                        zero.into_iter().for_each(|assignment| drop(own.send_replace(Some(assignment))));
                    }
                    Ok(MemberEvent::Revoking { partitions, release }) => {
                        if partitions.iter().any(|at| at.partition == 0) {
                            own.send_replace(None);
                        }
                        drop(release);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        }
    });
    for round in 0..ROUNDS {
        let second = log.join(join_spec(&group, &[&jobs], &unique("second"))).await?;
        let began = Instant::now();
        let given = assigned(&*second).await?;
        let took = began.elapsed();
        assert!(took < REBALANCED_WITHIN, "round {round}: {took:?} for {} partitions", given.len());
        within("leaving", second.leave()).await?;
    }
    within("leaving", first.leave()).await?;
    polling.await?;
    let (done, aborted) = committing.await??;
    println!("{done} commits, {aborted} aborted");
    assert!(done > 0);
    let committed = log.committed(&group, &at(&jobs, 0)).await?;
    assert_eq!(committed.map(|committed| committed.next), Some(done));
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), (0..done).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}
