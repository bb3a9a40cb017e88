//! A broker that is away when the log connects, that goes away later, and that dies in the middle of commits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{
    Assignment, Commit, CommitError, Log, LogError, Member, MemberEvent, Start, Topic, TopicPartition,
};
use tempfile::TempDir;

use crate::support::*;

/// Longest time until a call tells that no broker answers.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// A broker that a test may stop.
struct Broker {
    dir: TempDir,
    bootstrap: String,
}

impl Broker {
    fn start() -> anyhow::Result<Self> {
        trace();
        let mut broker = Self { dir: tempfile::tempdir()?, bootstrap: String::new() };
        broker.bootstrap = broker.restart()?;
        Ok(broker)
    }

    fn restart(&self) -> anyhow::Result<String> {
        let line = script(&["start"], self.dir.path())?;
        let address = line.trim().strip_prefix("KAFKA_BOOTSTRAP=").context("no address")?.to_owned();
        ensure!(self.bootstrap.is_empty() || self.bootstrap == address, "the broker came back on another port");
        Ok(address)
    }

    fn kill(&self) -> anyhow::Result<()> {
        script(&["stop", "--kill"], self.dir.path()).map(drop)
    }

    fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            delivery_timeout_ms: 2_000,
            request_timeout_ms: 1_000,
            ..KafkaSettings::single_broker(&self.bootstrap)
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("a broker was left behind: {error}");
        }
    }
}

fn script(arguments: &[&str], dir: &Path) -> anyhow::Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka-dev/kafka.sh");
    let output = Command::new(path).args(arguments).arg("--dir").arg(dir).env("RELAY_KAFKA_HEAP", "200m").output()?;
    ensure!(output.status.success(), "kafka.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Appends until it succeeds; the offset.
async fn append(log: &KafkaLog, topic: &Topic, value: &str) -> anyhow::Result<u64> {
    within("an append", async {
        loop {
            match log.append(vec![record(topic, 0, value)]).await {
                Ok(offsets) => return Ok(offsets[0]),
                Err(LogError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
    .await?
}

#[tokio::test]
async fn a_log_without_a_broker_says_so_and_recovers() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.kill()?;
    let log = KafkaLog::connect(broker.settings())?;
    let began = Instant::now();
    assert!(matches!(log.health().await, Err(LogError::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(2), "health took {:?}", began.elapsed());
    let somewhere = Topic::from("somewhere");
    let began = Instant::now();
    let refused = log.append(vec![record(&somewhere, 0, "x")]).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    let refused = log.join(join_spec("group", &[&somewhere], "id")).await.map(drop);
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < 2 * REFUSAL_MAX, "two refusals took {:?}", began.elapsed());

    broker.restart()?;
    let topic = topic(&log, "recovered", 1).await?;
    assert_eq!(append(&log, &topic, "x").await?, 0);
    assert_eq!(log.health().await, Ok(()));
    Ok(())
}

#[tokio::test]
async fn appends_readers_and_members_outlive_a_broker() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let log = KafkaLog::connect(broker.settings())?;
    let topic = topic(&log, "outage", 1).await?;
    let mut reader = log.read(vec![(at(&topic, 0), Start::Earliest)]).await?;
    let member = log.join(join_spec("group", &[&topic], "id")).await?;
    let mut assignment = assigned(&*member).await?.remove(0);
    append(&log, &topic, "before").await?;
    assert_eq!(text(&read_one(&mut *reader).await?), "before");
    assert_eq!(text(&delivered(&*member).await?.0), "before");
    commit_until_done(&log, "group", &*member, &mut assignment, &Commit::default(), 1).await?;

    broker.kill()?;
    let refused = log.append(vec![record(&topic, 0, "lost or late")]).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(matches!(log.health().await, Err(LogError::Unavailable(_))));
    within("the reader's complaint", async { while reader.next().await.is_ok() {} }).await?;
    broker.restart()?;

    append(&log, &topic, "after").await?;
    while text(&read_one(&mut *reader).await?) != "after" {}
    loop {
        match event(&*member).await? {
            MemberEvent::Record { record, .. } if text(&record) == "after" => break,
            MemberEvent::Record { record, .. } => assert_eq!(text(&record), "lost or late"),
            MemberEvent::Assigned(assignments) => assignment = assignments[0].clone(),
            MemberEvent::Revoking { .. } | MemberEvent::Lost(_) => {}
        }
    }
    commit_until_done(&log, "group", &*member, &mut assignment, &Commit::default(), 2).await?;
    let committed = log.committed("group", &at(&topic, 0)).await?;
    assert_eq!(committed.map(|committed| committed.next), Some(2));
    member.leave().await;
    Ok(())
}

/// Commits `next` with the records of `commit` as a careful caller does: again after an abort, and after a doubt only
/// what the log does not hold.
async fn commit_until_done(
    log: &KafkaLog,
    group: &str,
    member: &dyn Member,
    assignment: &mut Assignment,
    commit: &Commit,
    next: u64,
) -> anyhow::Result<()> {
    within("a commit", async {
        loop {
            let offsets = vec![offset(assignment, next, "")];
            match member.commit(Commit { records: commit.records.clone(), offsets }).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Aborted(_)) => tokio::task::yield_now().await,
                Err(CommitError::NotOwner(_)) => *assignment = assigned_again(member).await?,
                Err(CommitError::InDoubt(_) | CommitError::Fenced) => {
                    if committed(log, group, &assignment.at).await? >= next {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    })
    .await?
}

async fn assigned_again(member: &dyn Member) -> anyhow::Result<Assignment> {
    loop {
        if let MemberEvent::Assigned(assignments) = event(member).await? {
            return assignments.into_iter().next().context("an empty assignment");
        }
    }
}

async fn committed(log: &KafkaLog, group: &str, at: &TopicPartition) -> anyhow::Result<u64> {
    loop {
        match log.committed(group, at).await {
            Ok(committed) => return Ok(committed.map_or(0, |committed| committed.next)),
            Err(LogError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test]
async fn each_result_is_there_once_though_the_broker_dies_between_commits() -> anyhow::Result<()> {
    const RESULTS: u64 = 400;
    let broker = Arc::new(Broker::start()?);
    let log = KafkaLog::connect(broker.settings())?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    let member = log.join(join_spec("group", &[&jobs], "id")).await?;
    let mut assignment = assigned(&*member).await?.remove(0);
    let mut chaos = None;
    for n in 0..RESULTS {
        if n == RESULTS / 4 {
            let broker = Arc::clone(&broker);
            chaos = Some(tokio::task::spawn_blocking(move || broker.kill().and_then(|()| broker.restart())));
        }
        let commit = Commit { records: vec![record(&results, 0, &n.to_string())], offsets: Vec::new() };
        commit_until_done(&log, "group", &*member, &mut assignment, &commit, n + 1).await?;
    }
    let returned = chaos.context("the broker was never killed")?;
    within("the broker's return", returned).await???;
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    let expected: Vec<_> = (0..RESULTS).map(|n| n.to_string()).collect();
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), expected);
    assert_eq!(committed(&log, "group", &at(&jobs, 0)).await?, RESULTS);
    member.leave().await;
    Ok(())
}
