//! Which partition a record goes to. The count of partitions of a lane is fixed for ever.

/// MurmurHash2 as Kafka's Java client computes it (seed 0x9747b28c), so that a Java producer with the default
/// partitioner and the same key chooses the same partition. Source: `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// The partition of `key` among `partitions`, as Kafka's default partitioner chooses it.
pub fn of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// The key of a job's record: `tenant/idempotency key`, or `tenant/job id` without one.
pub fn job_key(tenant: &str, idempotency_key: Option<&str>, job_id: crate::JobId) -> String {
    match idempotency_key {
        Some(key) => format!("{tenant}/{key}"),
        None => format!("{tenant}/{job_id}"),
    }
}
