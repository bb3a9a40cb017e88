//! Commits: all or nothing, by the owner only.

use relay_log::port::{
    Commit, CommitError, Log, METADATA_BYTES_MAX, NewRecord, RECORD_BYTES_MAX, Start, Topic, TopicPartition,
};

use super::Harness;
use crate::support::{assigned, at, delivered, join_spec, offset, read_to_end, record, text, topic, unique, within};

async fn contents(log: &dyn Log, name: &Topic) -> anyhow::Result<Vec<String>> {
    let mut reader = log.read(vec![(at(name, 0), Start::Earliest)]).await?;
    Ok(read_to_end(&mut *reader).await?.0.iter().map(text).collect())
}

pub(crate) async fn records_and_offsets_come_together(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let (name, out) = (topic(&*log, "in", 1).await?, topic(&*log, "out", 1).await?);
    let group = unique("together");
    log.append(vec![record(&name, 0, "job")]).await?;
    let member = log.join(join_spec(&group, &[&name], &unique("one"))).await?;
    let owned = assigned(&*member).await?;
    delivered(&*member).await?;
    assert_eq!(log.committed(&group, &at(&name, 0)).await?, None);
    let records = vec![record(&out, 0, "first"), record(&out, 0, "second")];
    member.commit(Commit { records, offsets: vec![offset(&owned[0], 1, "m")] }).await?;
    assert_eq!(log.committed(&group, &at(&name, 0)).await?.map(|committed| committed.next), Some(1));
    assert_eq!(contents(&*log, &out).await?, ["first", "second"]);
    Ok(())
}

pub(crate) async fn metadata_comes_back_and_has_a_limit(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "metadata", 1).await?;
    let (group, id) = (unique("metadata"), unique("one"));
    log.append((0..9).map(|n| record(&name, 0, &n.to_string())).collect()).await?;
    let member = log.join(join_spec(&group, &[&name], &id)).await?;
    let owned = assigned(&*member).await?;
    let longest = "m".repeat(METADATA_BYTES_MAX);
    member.commit(Commit { records: Vec::new(), offsets: vec![offset(&owned[0], 2, &longest)] }).await?;
    let too_long = "m".repeat(METADATA_BYTES_MAX + 1);
    let refused = member.commit(Commit { records: Vec::new(), offsets: vec![offset(&owned[0], 3, &too_long)] }).await;
    assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    member.leave().await;
    let successor = log.join(join_spec(&group, &[&name], &id)).await?;
    let assignment = assigned(&*successor).await?.remove(0);
    let committed = assignment.committed.expect("something was committed");
    assert_eq!((committed.next, committed.metadata), (2, longest));
    Ok(())
}

pub(crate) async fn a_stale_epoch_commits_nothing(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let (name, out) = (topic(&*log, "stale", 1).await?, topic(&*log, "stale-out", 1).await?);
    let group = unique("stale");
    let member = log.join(join_spec(&group, &[&name], &unique("one"))).await?;
    let mut owned = assigned(&*member).await?.remove(0);
    owned.epoch -= 1;
    let commit = Commit { records: vec![record(&out, 0, "x")], offsets: vec![offset(&owned, 1, "")] };
    assert_eq!(member.commit(commit).await, Err(CommitError::NotOwner(vec![at(&name, 0)])));
    assert_eq!(log.committed(&group, &at(&name, 0)).await?, None);
    assert!(contents(&*log, &out).await?.is_empty());
    Ok(())
}

pub(crate) async fn a_zombie_commits_nothing(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let (name, out) = (topic(&*log, "zombie", 1).await?, topic(&*log, "zombie-out", 1).await?);
    let (group, id) = (unique("zombie"), unique("node"));
    log.append(vec![record(&name, 0, "job")]).await?;
    let zombie = log.join(join_spec(&group, &[&name], &id)).await?;
    let owned = assigned(&*zombie).await?.remove(0);
    delivered(&*zombie).await?;
    let successor = log.join(join_spec(&group, &[&name], &id)).await?;
    let commit = Commit { records: vec![record(&out, 0, "zombie")], offsets: vec![offset(&owned, 1, "zombie")] };
    let refused = within("the zombie's commit", zombie.commit(commit)).await?;
    assert!(matches!(refused, Err(CommitError::Fenced | CommitError::NotOwner(_))), "{refused:?}");
    drop(zombie);
    let given = within("the successor's share", assigned(&*successor)).await??.remove(0);
    delivered(&*successor).await?;
    let commit = Commit { records: vec![record(&out, 0, "successor")], offsets: vec![offset(&given, 1, "")] };
    // The zombie may have taken the id back once, when it re-initialised itself; nothing was committed then.
    while let Err(error) = within("the successor's commit", successor.commit(commit.clone())).await? {
        assert_eq!(error, CommitError::Fenced);
        assert_eq!(log.committed(&group, &at(&name, 0)).await?, None);
    }
    assert_eq!(contents(&*log, &out).await?, ["successor"]);
    Ok(())
}

pub(crate) async fn a_fenced_holder_commits_nothing(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let (name, out) = (topic(&*log, "fence", 1).await?, topic(&*log, "fence-out", 1).await?);
    let (group, id) = (unique("fence"), unique("node"));
    let member = log.join(join_spec(&group, &[&name], &id)).await?;
    let owned = assigned(&*member).await?.remove(0);
    log.fence(&id).await?;
    let commit = Commit { records: vec![record(&out, 0, "fenced")], offsets: vec![offset(&owned, 1, "")] };
    assert_eq!(within("the fenced commit", member.commit(commit.clone())).await?, Err(CommitError::Fenced));
    assert_eq!(log.committed(&group, &at(&name, 0)).await?, None);
    assert!(contents(&*log, &out).await?.is_empty());
    // It has re-initialised itself and still owns its partition.
    within("the next commit", member.commit(commit)).await??;
    assert_eq!(contents(&*log, &out).await?, ["fenced"]);
    Ok(())
}

pub(crate) async fn an_invalid_commit_does_nothing(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let (name, out) = (topic(&*log, "invalid", 1).await?, topic(&*log, "invalid-out", 1).await?);
    let group = unique("invalid");
    let member = log.join(join_spec(&group, &[&name], &unique("one"))).await?;
    let owned = assigned(&*member).await?.remove(0);
    let nowhere = TopicPartition::new(unique("nowhere"), 0);
    let large = vec![0_u8; RECORD_BYTES_MAX + 1].into();
    let wrong =
        [NewRecord { to: nowhere, ..record(&out, 0, "x") }, NewRecord { value: Some(large), ..record(&out, 0, "x") }];
    for wrong in wrong {
        let records = vec![record(&out, 0, "good"), wrong];
        let refused = member.commit(Commit { records, offsets: vec![offset(&owned, 1, "")] }).await;
        assert!(matches!(refused, Err(CommitError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(log.committed(&group, &at(&name, 0)).await?, None);
    assert!(contents(&*log, &out).await?.is_empty());
    Ok(())
}
