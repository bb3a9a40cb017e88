//! A member that stopped between sending its offsets and committing them, as a process under SIGSTOP or kill -9 does.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::port::{Log, NewRecord, ReadEvent, Start, Topic};
use relay_protocol::record::MemberRegistration;
use relay_protocol::topics;

use crate::support::*;

/// Its transaction: far longer than any wait of these tests, so that only a fence can end it; the most that the broker allows.
const ZOMBIE_TRANSACTION_MS: &str = "30000";

/// What a fence must be sooner than: half of the zombie's transaction.
const FENCED_WITHIN: Duration = Duration::from_secs(15);

/// Waits that show that something is being held back.
const QUIET: Duration = Duration::from_millis(1_500);

/// How far the zombie came in its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    BeforeItsOffsets,
    BeforeItsCommit,
}

struct Zombie(BaseProducer);

impl Zombie {
    /// A member of `group` that owned `jobs`/0, wrote a result and sent its offset, and then stopped; its session has
    /// ended.
    fn new(group: &str, id: &str, jobs: &Topic, results: &Topic) -> anyhow::Result<Self> {
        Self::stopped(Stopped::BeforeItsCommit, group, id, jobs, results)
    }

    fn stopped(at: Stopped, group: &str, id: &str, jobs: &Topic, results: &Topic) -> anyhow::Result<Self> {
        let brokers = bootstrap()?;
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("transactional.id", id)
            .set("transaction.timeout.ms", ZOMBIE_TRANSACTION_MS)
            .create()?;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()?;
        consumer.subscribe(&[jobs])?;
        let until = Instant::now() + PATIENCE;
        while consumer.assignment()?.count() == 0 {
            anyhow::ensure!(Instant::now() < until, "the zombie was assigned nothing");
            consumer.poll(Duration::from_millis(50));
        }
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        let record = BaseRecord::<(), str>::to(results).partition(0).payload("of the zombie");
        producer.send(record).map_err(|(error, _)| error)?;
        if at == Stopped::BeforeItsCommit {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(jobs, 0, Offset::Offset(1))?;
            let metadata = consumer.group_metadata().ok_or_else(|| anyhow::anyhow!("no group"))?;
            producer.send_offsets_to_transaction(&offsets, &metadata, PATIENCE)?;
        }
        producer.flush(PATIENCE)?;
        drop(consumer);
        Ok(Self(producer))
    }

    fn wakes_up(self) -> Result<(), rdkafka::error::KafkaError> {
        self.0.commit_transaction(PATIENCE)
    }
}

fn registration(group: &str, id: &str) -> MemberRegistration {
    let (group, transactional_id) = (group.to_owned(), id.to_owned());
    MemberRegistration { group, client_id: id.to_owned(), transactional_id, incarnation: 1 }
}

/// What the member would have written when it joined.
async fn register(log: &dyn Log, member: &MemberRegistration) -> anyhow::Result<()> {
    let record = NewRecord {
        key: Some(member.key().into()),
        value: Some(serde_json::to_vec(member)?.into()),
        ..record(&topics::CLUSTER.into(), 0, "")
    };
    log.append(vec![record]).await?;
    Ok(())
}

/// Lives of `id` that are registered.
async fn registered(log: &dyn Log, id: &str) -> anyhow::Result<Vec<u64>> {
    let mut reader = log.read(vec![(at(&topics::CLUSTER.into(), 0), Start::Earliest)]).await?;
    let mut lives = std::collections::BTreeMap::new();
    loop {
        match within("the registrations", reader.next()).await?? {
            ReadEvent::End { .. } => break,
            ReadEvent::Record(record) => drop(lives.insert(record.key.clone(), record.value)),
        }
    }
    let members = lives.values().flatten().filter_map(|value| serde_json::from_slice::<MemberRegistration>(value).ok());
    Ok(members.filter(|member| member.transactional_id == id).map(|member| member.incarnation).collect())
}

async fn await_lives(log: &dyn Log, id: &str, expected: usize) -> anyhow::Result<Vec<u64>> {
    within("the registrations", async {
        loop {
            let lives = registered(log, id).await?;
            if lives.len() == expected {
                return Ok(lives);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await?
}

#[tokio::test]
async fn an_heir_fences_who_died_before_its_commit_and_waits_for_no_time_out() -> anyhow::Result<()> {
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    log.append(vec![record(&jobs, 0, "job")]).await?;
    let (group, dead) = (unique("group"), unique("dead"));
    let zombie = Zombie::new(&group, &dead, &jobs, &results)?;
    register(&log, &registration(&group, &dead)).await?;

    let began = Instant::now();
    let heir = log.join(join_spec(&group, &[&jobs], &unique("heir"))).await?;
    let assignment = assigned(&*heir).await?.remove(0);
    let took = began.elapsed();
    println!("taken over {took:?} after joining");
    assert!(took < FENCED_WITHIN, "{took:?}");
    assert_eq!((assignment.committed, assignment.next), (None, 0), "the job is still to be done");
    assert_eq!(text(&delivered(&*heir).await?.0), "job");
    assert!(zombie.wakes_up().is_err(), "a zombie commits nothing");
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    assert!(read_to_end(&mut *reader).await?.0.is_empty(), "the zombie's result is not to be seen");
    await_lives(&log, &dead, 0).await?;
    heir.leave().await;
    Ok(())
}

#[tokio::test]
async fn what_a_dead_member_only_appended_hides_nothing_for_long_either() -> anyhow::Result<()> {
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    let (group, dead) = (unique("group"), unique("dead"));
    let _zombie = Zombie::stopped(Stopped::BeforeItsOffsets, &group, &dead, &jobs, &results)?;
    register(&log, &registration(&group, &dead)).await?;
    log.append(vec![record(&results, 0, "behind it")]).await?;
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    assert!(tokio::time::timeout(QUIET, reader.next()).await.is_err(), "an open transaction hides what is behind it");

    let began = Instant::now();
    let heir = log.join(join_spec(&group, &[&jobs], &unique("heir"))).await?;
    assert_eq!(text(&read_one(&mut *reader).await?), "behind it");
    let took = began.elapsed();
    println!("seen {took:?} after the heir joined");
    assert!(took < FENCED_WITHIN, "{took:?}");
    heir.leave().await;
    Ok(())
}

#[tokio::test]
async fn who_is_a_member_still_is_not_fenced_however_often_others_come() -> anyhow::Result<()> {
    let log = log()?;
    let jobs = topic(&log, "jobs", 2).await?;
    let group = unique("group");
    let (first_id, second_id) = (unique("first"), unique("second"));
    let first = log.join(join_spec(&group, &[&jobs], &first_id)).await?;
    assigned(&*first).await?;
    let lives = await_lives(&log, &first_id, 1).await?;
    // Gone without a word, so that there is somebody to be fenced.
    register(&log, &registration(&group, &unique("gone"))).await?;
    let second = log.join(join_spec(&group, &[&jobs], &second_id)).await?;
    let (_, release) = revoking(&*first).await?;
    drop(release);
    let given = tokio::spawn({
        let first = std::sync::Arc::clone(&first);
        async move { while first.next().await.is_ok() {} }
    });
    assigned(&*second).await?;
    tokio::time::sleep(QUIET).await;
    // Who is fenced registers anew with its next commit.
    let commit = relay_log::port::Commit { records: vec![record(&jobs, 0, "x")], offsets: Vec::new() };
    within("a commit", first.commit(commit)).await??;
    assert_eq!(registered(&log, &first_id).await?, lives);

    second.leave().await;
    first.leave().await;
    given.await?;
    assert!(registered(&log, &first_id).await?.is_empty(), "who leaves in order leaves no registration");
    assert!(registered(&log, &second_id).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn who_is_fenced_and_lives_is_registered_again() -> anyhow::Result<()> {
    let log = log()?;
    let jobs = topic(&log, "jobs", 1).await?;
    let (group, id) = (unique("group"), unique("id"));
    let member = log.join(join_spec(&group, &[&jobs], &id)).await?;
    assigned(&*member).await?;
    let before = await_lives(&log, &id, 1).await?;
    within("the fence", log.fence(&id)).await??;
    let commit = relay_log::port::Commit { records: vec![record(&jobs, 0, "x")], offsets: Vec::new() };
    let refused = within("a commit", member.commit(commit.clone())).await?;
    assert_eq!(refused, Err(relay_log::port::CommitError::Fenced));
    within("a commit", member.commit(commit)).await??;
    let after = await_lives(&log, &id, 1).await?;
    assert!(after[0] > before[0], "{after:?} is another life than {before:?}");
    member.leave().await;
    Ok(())
}

#[tokio::test]
async fn an_heir_waits_for_the_open_transaction_of_who_is_not_registered_until_somebody_fences_it() -> anyhow::Result<()>
{
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    log.append(vec![record(&jobs, 0, "job")]).await?;
    let (group, dead) = (unique("group"), unique("dead"));
    let zombie = Zombie::new(&group, &dead, &jobs, &results)?;

    let heir = log.join(join_spec(&group, &[&jobs], &unique("heir"))).await?;
    let early = tokio::time::timeout(QUIET, heir.next()).await;
    assert!(early.is_err(), "{early:?} although the zombie's offset may yet be committed");

    within("the fence", log.fence(&dead)).await??;
    let assignment = assigned(&*heir).await?.remove(0);
    assert_eq!((assignment.committed, assignment.next), (None, 0), "the job is still to be done");
    assert_eq!(text(&delivered(&*heir).await?.0), "job");
    assert!(zombie.wakes_up().is_err(), "a zombie commits nothing");
    heir.leave().await;
    Ok(())
}

#[tokio::test]
async fn a_restarted_node_ends_what_its_earlier_life_had_open() -> anyhow::Result<()> {
    let log = log()?;
    let (jobs, results) = (topic(&log, "jobs", 1).await?, topic(&log, "results", 1).await?);
    let (group, id) = (unique("group"), unique("id"));
    let zombie = Zombie::new(&group, &id, &jobs, &results)?;

    let job = at(&jobs, 0);
    assert!(tokio::time::timeout(QUIET, log.committed(&group, &job)).await.is_err(), "the offset is undecided");
    let member = within("joining", log.join(join_spec(&group, &[&jobs], &id))).await??;
    let assignment = assigned(&*member).await?.remove(0);
    assert_eq!(assignment.committed, None);
    assert_eq!(within("the offset", log.committed(&group, &job)).await??, None);
    assert!(zombie.wakes_up().is_err(), "a zombie commits nothing");
    member.leave().await;
    Ok(())
}
