//! Records: order, content, limits, borders, restarts.

use std::collections::HashSet;

use bytes::Bytes;
use relay_log::port::{
    LogError, LogReader, NewRecord, RECORD_BYTES_MAX, ReadEvent, Retention, Start, TopicPartition, TopicSpec,
    TopicState,
};

use super::Harness;
use crate::support::{at, read_one, read_to_end, record, text, topic, unique, within};

pub(crate) async fn order_within_a_partition(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "order", 2).await?;
    let batch = (0..50).map(|n| record(&name, n % 2, &n.to_string())).collect();
    let offsets = log.append(batch).await?;
    assert_eq!(offsets.len(), 50);
    log.append(vec![record(&name, 0, "last")]).await?;
    let mut reader = log.read(vec![(at(&name, 0), Start::Earliest)]).await?;
    let (records, next) = read_to_end(&mut *reader).await?;
    let mut expected: Vec<String> = (0..50).step_by(2).map(|n| n.to_string()).collect();
    expected.push("last".to_owned());
    assert_eq!(records.iter().map(text).collect::<Vec<_>>(), expected);
    assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    assert!(next > records.last().map_or(0, |record| record.offset));
    Ok(())
}

pub(crate) async fn headers_keys_and_tombstones_are_kept(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "content", 1).await?;
    let full = NewRecord {
        to: at(&name, 0),
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(b"\x00\xffvalue")),
        headers: vec![("one".to_owned(), Bytes::from_static(b"1")), ("two".to_owned(), Bytes::new())],
        timestamp_ms: 1_700_000_000_123,
    };
    let tombstone = NewRecord { value: None, headers: Vec::new(), ..full.clone() };
    log.append(vec![full.clone(), tombstone]).await?;
    let mut reader = log.read(vec![(at(&name, 0), Start::Earliest)]).await?;
    let first = read_one(&mut *reader).await?;
    let kept = (first.key.clone(), first.value.clone(), first.headers.clone(), first.timestamp_ms);
    assert_eq!(kept, (full.key.clone(), full.value.clone(), full.headers.clone(), full.timestamp_ms));
    assert_eq!(first.header("one"), Some(&Bytes::from_static(b"1")));
    let second = read_one(&mut *reader).await?;
    assert_eq!((second.key, second.value), (full.key, None));
    Ok(())
}

pub(crate) async fn readers_begin_where_they_are_told(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "starts", 1).await?;
    let timed = |n: u64| NewRecord { timestamp_ms: 1_700_000_000_000 + n * 1_000, ..record(&name, 0, &n.to_string()) };
    let offsets = log.append((0..200).map(timed).collect()).await?;
    let place = at(&name, 0);
    let first = |start| {
        let (log, place) = (log.clone(), place.clone());
        async move { anyhow::Ok(text(&read_one(&mut *log.read(vec![(place, start)]).await?).await?)) }
    };
    assert_eq!(first(Start::Earliest).await?, "0");
    assert_eq!(first(Start::Offset(offsets[7])).await?, "7");
    assert_eq!(first(Start::Time(1_700_000_000_000 + 123_000)).await?, "123");
    assert_eq!(first(Start::Time(1_700_000_000_000 + 122_001)).await?, "123");
    let mut latest = log.read(vec![(place.clone(), Start::Latest)]).await?;
    let (nothing, _) = read_to_end(&mut *latest).await?;
    assert!(nothing.is_empty(), "{nothing:?}");
    log.append(vec![timed(200)]).await?;
    assert_eq!(text(&read_one(&mut *latest).await?), "200");
    let mut late = log.read(vec![(place, Start::Time(1_700_000_999_000))]).await?;
    assert!(read_to_end(&mut *late).await?.0.is_empty());
    Ok(())
}

pub(crate) async fn below_the_low_watermark_is_out_of_range(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "low", 1).await?;
    let offsets = log.append((0..10).map(|n| record(&name, 0, &n.to_string())).collect()).await?;
    let place = at(&name, 0);
    log.delete_before(&place, offsets[4]).await?;
    assert_eq!(log.watermarks(&place).await?.low, offsets[4]);
    let mut reader = log.read(vec![(place.clone(), Start::Offset(offsets[1]))]).await?;
    let error = within("the error", first_error(&mut *reader)).await?;
    assert!(matches!(error, LogError::OffsetOutOfRange { .. }), "{error:?}");
    let mut rest = log.read(vec![(place.clone(), Start::Earliest)]).await?;
    assert_eq!(text(&read_one(&mut *rest).await?), "4");
    let beyond = log.delete_before(&place, 1_000).await;
    assert!(matches!(beyond, Err(LogError::OffsetOutOfRange { .. })), "{beyond:?}");
    Ok(())
}

async fn first_error(reader: &mut dyn LogReader) -> LogError {
    loop {
        match reader.next().await {
            Err(LogError::Unavailable(_)) | Ok(ReadEvent::End { .. }) => {}
            Err(error) => return error,
            Ok(ReadEvent::Record(record)) => panic!("a deleted record came: {record:?}"),
        }
    }
}

pub(crate) async fn one_mebibyte_goes_through_and_more_than_the_limit_does_not(
    harness: &dyn Harness,
) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "large", 1).await?;
    let of = |bytes: usize| NewRecord { value: Some(Bytes::from(vec![7_u8; bytes])), ..record(&name, 0, "") };
    log.append(vec![of(1_048_576), of(1_048_576), of(RECORD_BYTES_MAX)]).await?;
    let refused = log.append(vec![of(RECORD_BYTES_MAX + 1)]).await;
    assert_eq!(refused, Err(LogError::TooLarge { bytes: RECORD_BYTES_MAX + 1, limit: RECORD_BYTES_MAX }));
    let mut reader = log.read(vec![(at(&name, 0), Start::Earliest)]).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    let sizes: Vec<usize> = records.iter().filter_map(|record| record.value.as_ref()).map(Bytes::len).collect();
    assert_eq!(sizes, [1_048_576, 1_048_576, RECORD_BYTES_MAX]);
    Ok(())
}

pub(crate) async fn an_unknown_topic_is_named(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let nowhere = TopicPartition::new(unique("nowhere"), 0);
    let appended = log.append(vec![NewRecord { to: nowhere.clone(), ..record(&nowhere.topic, 0, "x") }]).await;
    assert_eq!(appended, Err(LogError::UnknownTopic(nowhere.clone())));
    assert_eq!(log.watermarks(&nowhere).await, Err(LogError::UnknownTopic(nowhere)));
    Ok(())
}

pub(crate) async fn topics_are_created_once_and_checked(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let spec = TopicSpec { name: unique("topics").into(), partitions: 3, retention: Retention::Compact };
    assert_eq!(log.check_topics(std::slice::from_ref(&spec)).await?, [TopicState::Missing]);
    log.create_topics(std::slice::from_ref(&spec)).await?;
    log.append(vec![NewRecord { key: Some(Bytes::from_static(b"key")), ..record(&spec.name, 2, "kept") }]).await?;
    let other = TopicSpec { partitions: 5, ..spec.clone() };
    log.create_topics(std::slice::from_ref(&other)).await?;
    assert_eq!(
        log.check_topics(&[spec.clone(), other]).await?,
        [TopicState::Ready, TopicState::Partitions { found: 3 }]
    );
    assert_eq!(log.watermarks(&at(&spec.name, 2)).await?.high, 1);
    log.health().await?;
    Ok(())
}

pub(crate) async fn many_writers_lose_and_double_nothing(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "writers", 4).await?;
    let writers = (0..32_u32).map(|writer| {
        let (log, name) = (log.clone(), name.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                log.append(vec![record(&name, writer % 4, &format!("{writer}/{n}"))]).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    let mut seen = HashSet::new();
    for partition in 0..4 {
        let mut reader = log.read(vec![(at(&name, partition), Start::Earliest)]).await?;
        for record in read_to_end(&mut *reader).await?.0 {
            assert!(seen.insert(text(&record)), "{} came twice", text(&record));
        }
    }
    assert_eq!(seen.len(), 32 * 50);
    Ok(())
}

pub(crate) async fn records_outlast_a_restart(harness: &dyn Harness) -> anyhow::Result<()> {
    let log = harness.log().await?;
    let name = topic(&*log, "restart", 2).await?;
    log.append((0..500).map(|n| record(&name, n % 2, &n.to_string())).collect()).await?;
    log.delete_before(&at(&name, 0), 10).await?;
    drop(log);
    let log = harness.reopen().await?;
    let low = log.watermarks(&at(&name, 0)).await?.low;
    assert_eq!(low, 10);
    let mut reader = log.read(vec![(at(&name, 1), Start::Earliest)]).await?;
    let (records, _) = read_to_end(&mut *reader).await?;
    assert_eq!(
        records.iter().map(text).collect::<Vec<_>>(),
        (1..500).step_by(2).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    log.append(vec![record(&name, 1, "after")]).await?;
    assert_eq!(text(&read_one(&mut *reader).await?), "after");
    Ok(())
}
