//! Identities: jobs, sessions and uploads.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Identity of a job: a UUID of version 7 whose 12 bits after the version hold the reply partition.
///
/// Time-ordered (the first 48 bits are milliseconds since the Unix epoch), so any node finds a job's events without
/// asking: the partition from the id, the place in it from the time. Any other UUID works too; its events are then read
/// from the partition that the same 12 bits name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct JobId(Uuid);

/// Reply partitions that a [`JobId`] can name.
pub const REPLY_PARTITIONS_MAX: u32 = 4096;

impl JobId {
    /// An id made at `now_ms` (milliseconds since the Unix epoch) whose events go to `reply_partition`, with 62 random bits.
    pub fn new(now_ms: u64, reply_partition: u32, random: u64) -> Self {
        let reply = u128::from(reply_partition % REPLY_PARTITIONS_MAX);
        let bits = u128::from(now_ms & 0xffff_ffff_ffff) << 80
            | 0x7 << 76
            | reply << 64
            | 0b10 << 62
            | u128::from(random & 0x3fff_ffff_ffff_ffff);
        Self(Uuid::from_u128(bits))
    }

    /// The id of a record that came without one: the same for the same place, so that a second reading of the record is
    /// the same job.
    ///
    /// From the SHA-256 digest of `topic/partition/offset`: its first two bytes (big endian, low 12 bits) are the reply
    /// partition, the next eight (big endian, low 62 bits) the random bits. Producers may give every record the same
    /// time stamp, so the place alone must tell ids apart: 74 bits do for any number of records a log can hold.
    pub fn of_record(topic: &str, partition: u32, offset: u64, timestamp_ms: u64) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] =
            <[u8; 32]>::from(Sha256::digest(format!("{topic}/{partition}/{offset}")));
        Self::new(timestamp_ms, u32::from(u16::from_be_bytes([a, b])), u64::from_be_bytes([c, d, e, f, g, h, i, j]))
    }

    /// The partition of the event topics, of which there are `partitions`, that holds this job's events.
    pub fn reply_partition(self, partitions: u32) -> u32 {
        ((self.0.as_u128() >> 64) as u32 & (REPLY_PARTITIONS_MAX - 1)) % partitions.max(1)
    }

    /// When the id was made, in milliseconds since the Unix epoch; `None` if it is no version 7 UUID.
    pub fn made_at_ms(self) -> Option<u64> {
        (self.0.get_version_num() == 7).then(|| (self.0.as_u128() >> 80) as u64)
    }

    /// The sixteen bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Identity of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// An id made of 128 random bits (version and variant are set).
    pub fn new(random: u128) -> Self {
        Self(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of an upload, made by the client: any UUID that the tenant has not used for another upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UploadId(Uuid);

impl UploadId {
    /// An id made of 128 random bits (version and variant are set).
    pub fn new(random: u128) -> Self {
        Self(uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid())
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
