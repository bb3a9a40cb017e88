//! Groups: who gets which partition, and when.

use std::collections::BTreeSet;
use std::sync::Arc;

use relay_log::port::{Commit, JoinSpec, Member, MemberEvent};

use super::Harness;
use crate::support::{
    assigned, at, delivered, event, join_spec, offset, record, revoking, text, topic, unique, within,
};

fn numbers<'a>(assignments: impl IntoIterator<Item = &'a relay_log::port::Assignment>) -> BTreeSet<u32> {
    assignments.into_iter().map(|assignment| assignment.at.partition).collect()
}

pub(crate) async fn partitions_are_shared_out_and_given_back(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "share", 4).await?;
    let group = unique("share");
    let first = log.join(join_spec(&group, &[&name], &unique("first"))).await?;
    assert_eq!(numbers(&assigned(&*first).await?), BTreeSet::from([0, 1, 2, 3]));

    let second = log.join(join_spec(&group, &[&name], &unique("second"))).await?;
    let moving = tokio::spawn(async move {
        let (taken, release) = revoking(&*first).await?;
        drop(release);
        anyhow::Ok((first, taken))
    });
    let given = within("the second's share", assigned(&*second)).await??;
    let (first, taken) = within("the first's loss", moving).await???;
    assert_eq!(taken.len(), 2, "only what moves is taken");
    assert_eq!(numbers(&given), taken.iter().map(|at| at.partition).collect());

    let watching = tokio::spawn(async move { assigned(&*first).await });
    within("leaving", second.leave()).await?;
    let back = within("what was given back", watching).await???;
    assert_eq!(numbers(&back), numbers(&given));
    Ok(())
}

pub(crate) async fn a_partition_is_not_given_on_before_its_release(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "release", 2).await?;
    let group = unique("release");
    log.append(vec![record(&name, 0, "a"), record(&name, 1, "b")]).await?;
    let first = log.join(join_spec(&group, &[&name], &unique("first"))).await?;
    let owned = assigned(&*first).await?;
    delivered(&*first).await?;
    delivered(&*first).await?;
    let second = log.join(join_spec(&group, &[&name], &unique("second"))).await?;
    let waiting = tokio::spawn({
        let second = Arc::clone(&second);
        async move { assigned(&*second).await }
    });
    let (taken, release) = revoking(&*first).await?;
    let moved = owned.iter().find(|assignment| taken.contains(&assignment.at)).expect("it was ours");
    let out = record(&name, moved.at.partition, "outcome");
    let commit = Commit { records: vec![out], offsets: vec![offset(moved, 1, "settled")] };
    within("a commit while it is being taken", first.commit(commit)).await??;
    assert!(!waiting.is_finished(), "it was given on before its release");
    drop(release);
    let given = tokio::spawn(async move {
        // The first goes on polling, as every member does.
        loop {
            if first.next().await.is_err() {
                break;
            }
        }
    });
    let assignments = within("the assignment", waiting).await???;
    let assignment = assignments.iter().find(|one| one.at == moved.at).expect("the moved partition");
    assert_eq!(assignment.next, 1, "what was committed last counts");
    assert_eq!(assignment.committed.as_ref().map(|committed| committed.metadata.as_str()), Some("settled"));
    given.abort();
    Ok(())
}

pub(crate) async fn a_paused_partition_is_silent(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "pause", 2).await?;
    let member = log.join(join_spec(&unique("pause"), &[&name], &unique("one"))).await?;
    assigned(&*member).await?;
    member.pause(&at(&name, 0), true);
    log.append(vec![record(&name, 0, "held")]).await?;
    log.append(vec![record(&name, 1, "free")]).await?;
    assert_eq!(text(&delivered(&*member).await?.0), "free");
    log.append(vec![record(&name, 1, "free again")]).await?;
    assert_eq!(text(&delivered(&*member).await?.0), "free again");
    member.pause(&at(&name, 0), false);
    assert_eq!(text(&delivered(&*member).await?.0), "held");
    Ok(())
}

pub(crate) async fn a_full_read_ahead_does_not_hold_up_a_rebalance(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "ahead", 2).await?;
    let group = unique("ahead");
    log.append((0..400).map(|n| record(&name, n % 2, &n.to_string())).collect()).await?;
    let spec = |id: &str| JoinSpec { read_ahead_records_max: 10, ..join_spec(&group, &[&name], &unique(id)) };
    let first = log.join(spec("first")).await?;
    assigned(&*first).await?;
    delivered(&*first).await?;
    // Nobody takes the first's records; its buffer is full, and still it must hear of the second.
    let second = log.join(spec("second")).await?;
    let (taken, release) = within("the rebalance", revoking(&*first)).await??;
    assert_eq!(taken.len(), 1);
    drop(release);
    let keep: Arc<dyn Member> = Arc::clone(&first);
    let polling =
        tokio::spawn(async move { while !matches!(keep.next().await, Err(relay_log::port::LogError::Closed)) {} });
    assert_eq!(numbers(&assigned(&*second).await?), numbers_of(&taken));
    polling.abort();
    Ok(())
}

fn numbers_of(partitions: &[relay_log::port::TopicPartition]) -> BTreeSet<u32> {
    partitions.iter().map(|at| at.partition).collect()
}

pub(crate) async fn a_group_goes_on_after_a_restart(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "again", 1).await?;
    let (group, id) = (unique("again"), unique("one"));
    log.append((0..10).map(|n| record(&name, 0, &n.to_string())).collect()).await?;
    let member = log.join(join_spec(&group, &[&name], &id)).await?;
    let owned = assigned(&*member).await?;
    member.commit(Commit { records: Vec::new(), offsets: vec![offset(&owned[0], 4, "four")] }).await?;
    member.leave().await;
    drop((member, log));
    let log = harness.reopen().await?;
    let committed = log.committed(&group, &at(&name, 0)).await?.expect("it was committed");
    assert_eq!((committed.next, committed.metadata.as_str()), (4, "four"));
    let member = log.join(join_spec(&group, &[&name], &id)).await?;
    assert_eq!(assigned(&*member).await?[0].next, 4);
    let MemberEvent::Record { record, .. } = event(&*member).await? else { panic!("a record should come") };
    assert_eq!(text(&record), "4");
    Ok(())
}
