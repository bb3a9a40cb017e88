//! Ids and partitions are what the golden files and Kafka's own vectors say.

use std::collections::HashSet;

use proptest::prelude::*;
use relay_protocol::JobId;
use relay_protocol::id::REPLY_PARTITIONS_MAX;
use relay_protocol::partition::{job_key, murmur2, of_key};

use crate::support::golden;

/// From Kafka's `UtilsTest.testMurmur2`.
#[test]
fn murmur2_is_kafka_s() {
    let vectors: &[(&str, i32)] = &[
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (key, hash) in vectors {
        assert_eq!(murmur2(key.as_bytes()) as i32, *hash, "{key}");
    }
}

#[test]
fn partitions_are_the_golden_ones() {
    for vector in golden("partitions").as_array().unwrap() {
        let key = vector["key"].as_str().unwrap().as_bytes();
        assert_eq!(vector["murmur2"], murmur2(key) as i32, "{vector}");
        assert_eq!((&vector["of_8"], &vector["of_12"]), (&of_key(key, 8).into(), &of_key(key, 12).into()), "{vector}");
    }
    assert_eq!(of_key(b"any", 0), 0, "no partitions count as one");
}

#[test]
fn ids_are_the_golden_ones() {
    let file = golden("ids");
    for vector in file["made"].as_array().unwrap() {
        let number = |field: &str| vector[field].as_u64().unwrap();
        let id = JobId::new(number("now_ms"), number("reply_partition") as u32, number("random"));
        assert_eq!(vector["id"], id.to_string(), "{vector}");
        assert_eq!(number("reply_partition_of_8"), u64::from(id.reply_partition(8)), "{vector}");
        assert_eq!(number("reply_partition_of_12"), u64::from(id.reply_partition(12)), "{vector}");
    }
    for vector in file["of_record"].as_array().unwrap() {
        let number = |field: &str| vector[field].as_u64().unwrap();
        let topic = vector["topic"].as_str().unwrap();
        let id = JobId::of_record(topic, number("partition") as u32, number("offset"), number("timestamp_ms"));
        assert_eq!(vector["id"], id.to_string(), "{vector}");
    }
}

/// Producers may stamp every record with the same time; the place alone keeps ids apart and spreads their events.
#[test]
fn ids_of_records_differ_and_spread() {
    let (mut ids, mut replies) = (HashSet::new(), [0_u32; 16]);
    for topic in ["media.jobs.default", "media.jobs.video", "media.jobs.video1"] {
        for partition in 0..12 {
            for offset in 0..2_000 {
                let id = JobId::of_record(topic, partition, offset, 0);
                assert_eq!(id.made_at_ms(), Some(0));
                replies[id.reply_partition(16) as usize] += 1;
                assert!(ids.insert(id), "{topic}/{partition}/{offset} has the id of another record");
            }
        }
    }
    let mean = ids.len() as u32 / 16;
    assert!(replies.iter().all(|count| count.abs_diff(mean) < mean / 10), "{replies:?} around {mean}");
}

proptest! {
    #[test]
    fn an_id_tells_its_time_and_partition(now_ms in 0..1_u64 << 48, reply in 0..REPLY_PARTITIONS_MAX, random: u64, n in 1..=4096_u32) {
        let id = JobId::new(now_ms, reply, random);
        prop_assert_eq!(id.made_at_ms(), Some(now_ms));
        prop_assert_eq!(id.reply_partition(REPLY_PARTITIONS_MAX), reply);
        prop_assert_eq!(id.reply_partition(n), reply % n);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(JobId::from_bytes(*id.as_bytes()), id);
        prop_assert!(id < JobId::new(now_ms + 1, 0, 0) || now_ms + 1 == 1 << 48, "ids are ordered by time");
    }

    #[test]
    fn any_bytes_are_an_id_with_a_partition(bytes: [u8; 16], n: u32) {
        prop_assert!(JobId::from_bytes(bytes).reply_partition(n) < n.max(1));
    }

    #[test]
    fn a_key_is_in_range(key: Vec<u8>, n in 1..=u32::MAX) {
        prop_assert!(of_key(&key, n) < n);
    }

    /// Two tenants never share a key, because a tenant has no `/`.
    #[test]
    fn keys_of_two_tenants_differ(a in "[a-c]{1,3}", b in "[a-c]{1,3}", key_a in "[a-c/]{1,6}", key_b in "[a-c/]{1,6}") {
        prop_assume!(a != b);
        let id = JobId::new(0, 0, 0);
        prop_assert_ne!(job_key(&a, Some(&key_a), id), job_key(&b, Some(&key_b), id));
    }
}
