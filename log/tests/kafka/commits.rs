//! Commits on a real broker: their limits, fencing, and what a new owner sees.

use relay_log::port::{Commit, CommitError, Committed, Log, LogError, Start};

use crate::support::*;

#[tokio::test]
async fn the_largest_metadata_is_kept_and_a_byte_more_is_refused() -> anyhow::Result<()> {
    let log = log()?;
    let topic = topic(&log, "metadata", 1).await?;
    let group = unique("group");
    let member = log.join(join_spec(&group, &[&topic], &unique("id"))).await?;
    let assignment = assigned(&*member).await?.remove(0);
    let largest = "m".repeat(4096);
    let commit = |metadata: &str| Commit { records: Vec::new(), offsets: vec![offset(&assignment, 0, metadata)] };

    let refused = member.commit(commit(&"m".repeat(4097))).await;
    assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    assert_eq!(log.committed(&group, &at(&topic, 0)).await?, None);

    within("the commit", member.commit(commit(&largest))).await??;
    let committed = log.committed(&group, &at(&topic, 0)).await?;
    assert_eq!(committed, Some(Committed { next: 0, metadata: largest }));
    member.leave().await;
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_taken_over_commits_nothing_and_can_go_on_afterwards() -> anyhow::Result<()> {
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    let (group, id) = (unique("group"), unique("id"));
    let member = log.join(join_spec(&group, &[&jobs], &id)).await?;
    let assignment = assigned(&*member).await?.remove(0);
    let commit = |value: &str, next| Commit {
        records: vec![record(&results, 0, value)],
        offsets: vec![offset(&assignment, next, value)],
    };
    within("a commit", member.commit(commit("first", 1))).await??;

    within("the fence", log.fence(&id)).await??;
    assert_eq!(within("a commit", member.commit(commit("fenced", 2))).await?, Err(CommitError::Fenced));
    let committed = log.committed(&group, &at(&jobs, 0)).await?;
    assert_eq!(committed, Some(Committed { next: 1, metadata: "first".into() }), "the fenced commit left no trace");

    within("a commit", member.commit(commit("second", 2))).await??;
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["first", "second"]);
    member.leave().await;
    assert_eq!(member.commit(commit("late", 3)).await, Err(CommitError::NotOwner(vec![at(&jobs, 0)])));
    assert_eq!(member.next().await.err(), Some(LogError::Closed));
    Ok(())
}
