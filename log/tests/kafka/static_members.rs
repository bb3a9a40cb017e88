//! Members that keep their place in the group: what a restart costs, and what a leave does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, LogError, Member, MemberEvent};

use crate::support::*;

/// The session: far longer than any wait of these tests, so that nothing can come of its end.
const SESSION_MS: u32 = 60_000;

fn settings() -> anyhow::Result<KafkaSettings> {
    trace();
    let single = KafkaSettings::single_broker(bootstrap()?);
    Ok(KafkaSettings { session_timeout_ms: SESSION_MS, static_membership: true, ..single })
}

/// Takes the member's events, as everybody must; partitions that are asked back are let go at once.
fn polled(member: &Arc<dyn Member>) -> tokio::task::JoinHandle<Vec<MemberEvent>> {
    let member = Arc::clone(member);
    tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            match member.next().await {
                Ok(MemberEvent::Revoking { release, .. }) => drop(release),
                Ok(event) => seen.push(event),
                Err(LogError::Closed) => return seen,
                Err(_) => {}
            }
        }
    })
}

/// Two members with a partition each.
async fn pair(
    log: &KafkaLog,
    group: &str,
    ids: [&str; 2],
) -> anyhow::Result<(relay_log::port::Topic, [Arc<dyn Member>; 2])> {
    let jobs = topic(log, "jobs", 2).await?;
    let first = log.join(join_spec(group, &[&jobs], ids[0])).await?;
    assert_eq!(assigned(&*first).await?.len(), 2);
    let second = log.join(join_spec(group, &[&jobs], ids[1])).await?;
    let (_, release) = revoking(&*first).await?;
    drop(release);
    let first_polls = tokio::spawn({
        let first = Arc::clone(&first);
        async move { assigned(&*first).await }
    });
    assert_eq!(assigned(&*second).await?.len(), 1);
    first_polls.abort();
    Ok((jobs, [first, second]))
}

#[tokio::test]
async fn who_comes_back_within_the_session_has_its_partitions_at_once_and_nobody_else_is_disturbed()
-> anyhow::Result<()> {
    let (before, after) = (KafkaLog::connect(settings()?)?, KafkaLog::connect(settings()?)?);
    let (group, first_id, second_id) = (unique("group"), unique("first"), unique("second"));
    let (jobs, [first, second]) = pair(&before, &group, [&first_id, &second_id]).await?;
    let others = polled(&first);

    // The next life of a process that ended without a word: to the broker it looks like this.
    let began = Instant::now();
    let again = after.join(join_spec(&group, &[&jobs], &second_id)).await?;
    let assignments = assigned(&*again).await?;
    println!("back after {:?}", began.elapsed());
    assert_eq!(assignments.len(), 1);
    assert!(began.elapsed() < Duration::from_millis(SESSION_MS.into()) / 2, "{:?}", began.elapsed());

    // The earlier life hears that it is out, and its process is not ready any more.
    let out = within("the news", async {
        loop {
            match second.next().await {
                Err(LogError::Denied(reason)) => return reason,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let reason = out.await?;
    assert!(reason.contains("took this member's place"), "{reason}");
    assert!(matches!(before.health().await, Err(LogError::Denied(_))));
    assert_eq!(after.health().await, Ok(()));

    within("leaving", async { tokio::join!(second.leave(), first.leave(), again.leave()) }).await?;
    let seen: Vec<_> = others
        .await?
        .into_iter()
        .filter(|event| !matches!(event, MemberEvent::Assigned(new) if new.is_empty()))
        .collect();
    assert!(seen.is_empty(), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn who_leaves_in_order_gives_its_partitions_away_at_once() -> anyhow::Result<()> {
    let log = KafkaLog::connect(settings()?)?;
    let group = unique("group");
    let (_, [first, second]) = pair(&log, &group, [&unique("first"), &unique("second")]).await?;
    let others = polled(&second);
    let began = Instant::now();
    let heir = tokio::spawn(async move { (assigned(&*first).await, first) });
    within("leaving", second.leave()).await?;
    println!("left after {:?}", began.elapsed());
    let (assignments, first) = within("what the other left", heir).await??;
    println!("given on after {:?}", began.elapsed());
    assert_eq!(assignments?.len(), 1);
    assert!(began.elapsed() < Duration::from_millis(SESSION_MS.into()) / 2, "{:?}", began.elapsed());
    others.await?;
    first.leave().await;
    Ok(())
}
