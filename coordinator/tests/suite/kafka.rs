//! Topics and the audit trail on a real Kafka broker (environment `KAFKA_BOOTSTRAP`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use coordinator::topics::keeper::{Missing, TOPICS, TopicKeeper};
use coordinator::{Coordinator, Settings};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, ReadEvent, Retention, Start, TopicPartition, TopicSpec, TopicState};
use relay_protocol::record::AuditEntry;
use relay_runtime::ops_http::{Readiness, STARTING};
use relay_runtime::random::SystemRandom;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, beat, heartbeat, settings, until};

fn log() -> anyhow::Result<Arc<dyn Log>> {
    let brokers = std::env::var("KAFKA_BOOTSTRAP").context("KAFKA_BOOTSTRAP must name a Kafka broker")?;
    Ok(Arc::new(KafkaLog::connect(KafkaSettings::single_broker(brokers))?))
}

/// A name that no other test or run uses.
fn fresh(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{name}-{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention: Retention::Forever }
}

fn not_ready() -> Readiness {
    let readiness = Readiness::starting();
    readiness.clear(STARTING);
    readiness
}

async fn reason(readiness: &Readiness, words: &str) -> String {
    let ask = || async { readiness.reasons().iter().map(|r| format!("{}: {}", r.code, r.message)).collect::<String>() };
    until(words, ask, |reasons| reasons.contains(words)).await
}

#[actix_web::test]
async fn missing_topics_are_created() -> anyhow::Result<()> {
    let (log, specs, stop) = (log()?, [spec(&fresh("one"), 2), spec(&fresh("two"), 3)], CancellationToken::new());
    let readiness = not_ready();
    let keeper = TopicKeeper::new(log.clone(), specs.to_vec(), Missing::Create, readiness.clone());
    assert!(!readiness.is_ready(), "not before they were checked");
    actix_web::rt::spawn(keeper.run(SystemRandom, stop.clone()));
    timeout(PATIENCE, readiness.wait_ready()).await?;
    assert_eq!(log.check_topics(&specs).await?, [TopicState::Ready, TopicState::Ready]);
    stop.cancel();
    Ok(())
}

#[actix_web::test]
async fn missing_topics_are_printed_and_awaited_when_they_must_not_be_created() -> anyhow::Result<()> {
    let (log, specs, stop) = (log()?, [spec(&fresh("by-hand"), 1)], CancellationToken::new());
    let readiness = not_ready();
    let printed = Arc::new(AtomicU32::new(0));
    let count = printed.clone();
    let commands = Missing::Print(Box::new(move |missing| {
        count.fetch_add(1, Ordering::SeqCst);
        missing.iter().map(|spec| format!("create {}", spec.name)).collect()
    }));
    let keeper = TopicKeeper::new(log.clone(), specs.to_vec(), commands, readiness.clone());
    actix_web::rt::spawn(keeper.run(SystemRandom, stop.clone()));
    assert!(reason(&readiness, &specs[0].name).await.starts_with(TOPICS));
    log.create_topics(&specs).await?;
    timeout(PATIENCE, readiness.wait_ready()).await?;
    assert_eq!(printed.load(Ordering::SeqCst), 1, "once, not with each look");
    stop.cancel();
    Ok(())
}

#[actix_web::test]
async fn a_topic_with_another_partition_count_is_refused() -> anyhow::Result<()> {
    let (log, name, stop) = (log()?, fresh("narrow"), CancellationToken::new());
    log.create_topics(&[spec(&name, 2)]).await?;
    let readiness = not_ready();
    let keeper = TopicKeeper::new(log.clone(), vec![spec(&name, 5)], Missing::Create, readiness.clone());
    actix_web::rt::spawn(keeper.run(SystemRandom, stop.clone()));
    let words = reason(&readiness, "has 2 partitions instead of 5").await;
    assert!(words.contains(&name) && words.contains("fixed for ever"), "{words}");
    stop.cancel();
    Ok(())
}

#[actix_web::test]
async fn a_topic_that_drops_what_must_be_kept_is_refused_with_what_to_set() -> anyhow::Result<()> {
    let (log, name, stop) = (log()?, fresh("forgetful"), CancellationToken::new());
    let day = Retention::Age(Duration::from_secs(86_400));
    log.create_topics(&[TopicSpec { retention: day, ..spec(&name, 1) }]).await?;
    let readiness = not_ready();
    let keeper = TopicKeeper::new(log.clone(), vec![spec(&name, 1)], Missing::Create, readiness.clone());
    actix_web::rt::spawn(keeper.run(SystemRandom, stop.clone()));
    let words = reason(&readiness, "drop records that must be kept").await;
    assert!(words.contains(&format!("--entity-name {name} --add-config retention.ms=-1")), "{words}");
    stop.cancel();
    Ok(())
}

#[actix_web::test]
async fn a_coordinator_becomes_ready_and_writes_who_came_and_went() -> anyhow::Result<()> {
    let log = log()?;
    let mut settings = Settings { name: fresh("coordinator"), ..settings() };
    // On a busy machine the first append of a new producer takes a while.
    settings.http.drain_timeout_ms = 30_000;
    let writer = settings.name.clone();
    let coordinator = Coordinator::start(settings, log.clone()).await?;
    timeout(PATIENCE, coordinator.readiness.wait_ready()).await?;
    timeout(PATIENCE, coordinator.wait_leading()).await?;
    assert_eq!(beat(&coordinator, &heartbeat("a", 1)).await.0, 200);
    assert_eq!(beat(&coordinator, &heartbeat("a", 2)).await.0, 200);
    coordinator.stop().await; // the trail is written by then

    let partition = relay_protocol::partition::of_key(writer.as_bytes(), 4);
    let start = (TopicPartition::new("media.audit", partition), Start::Earliest);
    let mut reader = log.read(vec![start]).await?;
    let mut actions = Vec::new();
    while actions.len() < 3 {
        let event = timeout(PATIENCE, reader.next()).await.context("the entries did not come")??;
        let ReadEvent::Record(record) = event else { continue };
        let entries: Vec<AuditEntry> = serde_json::from_slice(record.value.as_deref().context("a tombstone")?)?;
        let of_nodes = |entry: &AuditEntry| entry.node == writer && entry.action.starts_with("node.");
        for entry in entries.into_iter().filter(of_nodes) {
            assert_eq!((entry.subject.as_str(), entry.tenant.as_str()), ("anonymous", "default"));
            actions.push(format!("{} {} {}", entry.action, entry.detail["incarnation"], entry.detail["reason"]));
        }
    }
    assert_eq!(actions, ["node.joined 1 \"new\"", "node.left 1 \"replaced\"", "node.joined 2 \"restarted\""]);
    Ok(())
}
