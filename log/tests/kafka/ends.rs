//! Where a reader begins and ends, with open transactions and control records about.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use relay_log::port::{Log, LogError, LogReader, ReadEvent, Start, Topic};

use crate::support::*;

/// Long enough for many fetches: what has not come by then is being held back.
const QUIET: Duration = Duration::from_millis(600);

/// A producer that the adapter knows nothing of.
struct Outsider(BaseProducer);

impl Outsider {
    fn new() -> anyhow::Result<Self> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap()?)
            .set("transactional.id", unique("outsider"))
            .set("transaction.timeout.ms", "20000")
            .set("linger.ms", "0")
            .create()?;
        producer.init_transactions(PATIENCE)?;
        Ok(Self(producer))
    }

    /// Begins a transaction and writes into it.
    fn open(&self, topic: &Topic, value: &str) -> anyhow::Result<()> {
        self.0.begin_transaction()?;
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(value);
        self.0.send(record).map_err(|(error, _)| error)?;
        self.0.flush(PATIENCE)?;
        Ok(())
    }
}

async fn is_quiet(reader: &mut dyn LogReader) -> bool {
    tokio::time::timeout(QUIET, reader.next()).await.is_err()
}

/// Waits until the partition's committed end is `stable`: a broker answers the end of a transaction before it writes
/// the markers.
async fn marked(log: &dyn Log, topic: &Topic, stable: u64) -> anyhow::Result<()> {
    within("the marker", async {
        while log.watermarks(&at(topic, 0)).await?.stable < stable {}
        Ok(())
    })
    .await?
}

#[tokio::test]
async fn the_end_waits_for_a_transaction_that_was_open() -> anyhow::Result<()> {
    let log = log()?;
    let topic = topic(&log, "open", 1).await?;
    log.append(vec![record(&topic, 0, "before")]).await?;
    let outsider = Outsider::new()?;
    outsider.open(&topic, "inside")?;
    log.append(vec![record(&topic, 0, "after")]).await?;

    let borders = log.watermarks(&at(&topic, 0)).await?;
    assert_eq!((borders.low, borders.stable, borders.high), (0, 1, 3));
    let mut reader = log.read(vec![(at(&topic, 0), Start::Earliest)]).await?;
    assert_eq!(text(&read_one(&mut *reader).await?), "before");
    assert!(is_quiet(&mut *reader).await, "neither records behind an open transaction nor an end");

    outsider.0.commit_transaction(PATIENCE)?;
    let (records, next) = read_to_end(&mut *reader).await?;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["inside", "after"]);
    assert!(next >= 3, "{next} is at or beyond what was there");

    log.append(vec![record(&topic, 0, "later")]).await?;
    let (records, next) = read_to_end(&mut *reader).await?;
    assert_eq!((records.len(), next), (1, 5), "the marker took an offset; the end is told anew");
    Ok(())
}

#[tokio::test]
async fn the_end_comes_also_behind_control_records() -> anyhow::Result<()> {
    let log = log()?;
    let topic = topic(&log, "markers", 1).await?;
    let outsider = Outsider::new()?;
    outsider.open(&topic, "aborted")?;
    outsider.0.abort_transaction(PATIENCE)?;
    marked(&log, &topic, 2).await?;
    let mut reader = log.read(vec![(at(&topic, 0), Start::Earliest)]).await?;
    let (records, next) = read_to_end(&mut *reader).await?;
    assert_eq!((records.len(), next), (0, 2), "an aborted record and its marker are passed over");

    outsider.open(&topic, "committed")?;
    outsider.0.commit_transaction(PATIENCE)?;
    marked(&log, &topic, 4).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), ["committed"]);
    assert_eq!(records[0].offset, 2);

    let mut late = log.read(vec![(at(&topic, 0), Start::Latest)]).await?;
    let (records, next) = read_to_end(&mut *late).await?;
    assert_eq!((records.len(), next), (0, 4));
    Ok(())
}

#[tokio::test]
async fn each_partition_of_each_topic_tells_its_own_end() -> anyhow::Result<()> {
    let log = log()?;
    let (one, two) = (topic(&log, "one", 2).await?, topic(&log, "two", 1).await?);
    log.append(vec![record(&two, 0, "only")]).await?;
    let starts = [at(&one, 0), at(&one, 1), at(&two, 0)].map(|at| (at, Start::Earliest)).to_vec();
    let mut reader = log.read(starts).await?;
    let mut ends = std::collections::BTreeMap::new();
    while ends.len() < 3 {
        if let ReadEvent::End { at, next } = within("an end", reader.next()).await?? {
            ends.insert(at, next);
        }
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [(at(&one, 0), 0), (at(&one, 1), 0), (at(&two, 0), 1)]);
    Ok(())
}

#[tokio::test]
async fn a_reader_begins_where_it_is_told() -> anyhow::Result<()> {
    let log = log()?;
    let topic = topic(&log, "starts", 1).await?;
    let stamped = |value: &str, ms| {
        let mut record = record(&topic, 0, value);
        record.timestamp_ms = ms;
        record
    };
    log.append(vec![stamped("a", 1_000), stamped("b", 2_000), stamped("c", 3_000)]).await?;
    log.delete_before(&at(&topic, 0), 1).await?;
    for (start, expected) in [
        (Start::Earliest, vec!["b", "c"]),
        (Start::Offset(2), vec!["c"]),
        (Start::Offset(3), vec![]),
        (Start::Time(2_500), vec!["c"]),
        (Start::Time(9_000), vec![]),
        (Start::Latest, vec![]),
    ] {
        let mut reader = log.read(vec![(at(&topic, 0), start)]).await?;
        let (records, next) = read_to_end(&mut *reader).await?;
        assert_eq!(records.iter().map(text).collect::<Vec<_>>(), expected, "{start:?}");
        assert_eq!(next, 3);
    }
    let mut reader = log.read(vec![(at(&topic, 0), Start::Offset(0))]).await?;
    let expected = LogError::OffsetOutOfRange { at: at(&topic, 0), offset: 0, low: 1, high: 3 };
    assert_eq!(within("an error", reader.next()).await?.err(), Some(expected));

    let beyond = log.delete_before(&at(&topic, 0), 9).await;
    assert_eq!(beyond, Err(LogError::OffsetOutOfRange { at: at(&topic, 0), offset: 9, low: 1, high: 3 }));
    let nowhere = at(&Topic::from("no-such-topic"), 0);
    assert_eq!(log.read(vec![(nowhere.clone(), Start::Earliest)]).await.err(), Some(LogError::UnknownTopic(nowhere)));
    assert_eq!(log.append(vec![record(&topic, 1, "x")]).await, Err(LogError::UnknownTopic(at(&topic, 1))));
    Ok(())
}
