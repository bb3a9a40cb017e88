//! A member that stopped between sending its offsets and committing them, as a process under SIGSTOP or kill -9 does.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use relay_log::port::{Log, Start, Topic};

use crate::support::*;

/// Its transaction: far longer than any wait of these tests, so that only a fence can end it.
const ZOMBIE_TRANSACTION_MS: &str = "30000";

/// Waits that show that something is being held back.
const QUIET: Duration = Duration::from_millis(600);

struct Zombie(BaseProducer);

impl Zombie {
    /// A member of `group` that owned `jobs`/0, wrote a result and sent its offset, and then stopped; its session has
    /// ended.
    fn new(group: &str, id: &str, jobs: &Topic, results: &Topic) -> anyhow::Result<Self> {
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
        let until = std::time::Instant::now() + PATIENCE;
        while consumer.assignment()?.count() == 0 {
            anyhow::ensure!(std::time::Instant::now() < until, "the zombie was assigned nothing");
            consumer.poll(Duration::from_millis(50));
        }
        producer.init_transactions(PATIENCE)?;
        producer.begin_transaction()?;
        let record = BaseRecord::<(), str>::to(results).partition(0).payload("of the zombie");
        producer.send(record).map_err(|(error, _)| error)?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(jobs, 0, Offset::Offset(1))?;
        let metadata = consumer.group_metadata().ok_or_else(|| anyhow::anyhow!("no group"))?;
        producer.send_offsets_to_transaction(&offsets, &metadata, PATIENCE)?;
        producer.flush(PATIENCE)?;
        drop(consumer);
        Ok(Self(producer))
    }

    fn wakes_up(self) -> Result<(), rdkafka::error::KafkaError> {
        self.0.commit_transaction(PATIENCE)
    }
}

#[tokio::test]
async fn an_heir_waits_for_the_open_transaction_and_a_fence_ends_the_wait() -> anyhow::Result<()> {
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
    let mut reader = log.read(vec![(at(&results, 0), Start::Earliest)]).await?;
    assert!(read_to_end(&mut *reader).await?.0.is_empty(), "the zombie's result is not to be seen");
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
