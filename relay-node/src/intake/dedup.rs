//! Which jobs of one partition ended within the window, by the key or id that stands for them. Pure and bounded: what
//! expires first is forgotten first.

use std::collections::{BTreeSet, HashMap};

use relay_protocol::JobId;
use relay_protocol::record::DedupEntry;
use sha2::{Digest, Sha256};

/// Bytes kept of a SHA-256 digest: enough that no two keys or bodies of a lane share them.
const KEPT_BYTES: usize = 16;

/// What stands for a job within its lane: tenant and idempotency key, or tenant and job id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope([u8; KEPT_BYTES]);

impl Scope {
    /// An idempotency key of a tenant.
    pub fn of_key(tenant: &str, key: &str) -> Self {
        Self::of(b'k', tenant, key.as_bytes())
    }

    /// A job id of a tenant.
    pub fn of_id(tenant: &str, job_id: JobId) -> Self {
        Self::of(b'i', tenant, job_id.as_bytes())
    }

    fn of(kind: u8, tenant: &str, what: &[u8]) -> Self {
        // A tenant has no `/`: it ends there.
        let digest = Sha256::new_with_prefix([kind]).chain_update(tenant).chain_update(b"/").chain_update(what);
        Self(first(&digest.finalize().into()))
    }
}

/// The first bytes of [`relay_protocol::Job::body_sha256`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body([u8; KEPT_BYTES]);

impl Body {
    /// Of this digest.
    pub fn new(sha256: &[u8; 32]) -> Self {
        Self(first(sha256))
    }

    /// Of a digest in hex; `None` if it is none.
    pub fn read(text: &str) -> Option<Self> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(text, &mut sha256).ok()?;
        Some(Self::new(&sha256))
    }
}

fn first(digest: &[u8; 32]) -> [u8; KEPT_BYTES] {
    let mut kept = [0; KEPT_BYTES];
    kept.copy_from_slice(&digest[..KEPT_BYTES]);
    kept
}

/// A job that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedJob {
    /// Which.
    pub job_id: JobId,
    /// What it did, if a key stands for it.
    pub body: Option<Body>,
    /// When it ended, in milliseconds since the Unix epoch: its terminal event lies there.
    pub ended_at_ms: u64,
    /// From then on its key and id are free, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// What a record of the dedup topic says; `None` if its digest is none.
pub fn read(entry: &DedupEntry) -> Option<(Scope, EndedJob)> {
    let body = match &entry.body_sha256 {
        Some(text) => Some(Body::read(text)?),
        None => None,
    };
    let scope = match &entry.idempotency_key {
        Some(key) => Scope::of_key(&entry.tenant, key),
        None => Scope::of_id(&entry.tenant, entry.job_id),
    };
    let (ended_at_ms, expires_at_ms) = (entry.ended_at, entry.expires_at);
    Some((scope, EndedJob { job_id: entry.job_id, body, ended_at_ms, expires_at_ms }))
}

/// The jobs of one partition that ended.
#[derive(Debug, Clone)]
pub struct DedupIndex {
    ended: HashMap<Scope, EndedJob>,
    by_expiry: BTreeSet<(u64, Scope)>,
    entries_max: usize,
    forgotten: u64,
}

impl DedupIndex {
    /// An empty index of at most `entries_max` jobs.
    pub fn new(entries_max: usize) -> Self {
        Self { ended: HashMap::new(), by_expiry: BTreeSet::new(), entries_max, forgotten: 0 }
    }

    /// Jobs in the index.
    pub fn len(&self) -> usize {
        self.ended.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    /// Jobs that were forgotten before their time because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A job ended; it takes the place of an earlier one of the same scope.
    pub fn insert(&mut self, scope: Scope, job: EndedJob) {
        if let Some(earlier) = self.ended.insert(scope, job) {
            self.by_expiry.remove(&(earlier.expires_at_ms, scope));
        }
        self.by_expiry.insert((job.expires_at_ms, scope));
        while self.ended.len() > self.entries_max
            && let Some((_, oldest)) = self.by_expiry.pop_first()
        {
            self.ended.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// The job that this scope stands for at `now_ms`.
    pub fn get(&self, scope: Scope, now_ms: u64) -> Option<&EndedJob> {
        self.ended.get(&scope).filter(|job| job.expires_at_ms > now_ms)
    }

    /// Forgets the jobs whose time is over at `now_ms`.
    pub fn forget_expired(&mut self, now_ms: u64) {
        while let Some((expires_at_ms, scope)) = self.by_expiry.first().copied()
            && expires_at_ms <= now_ms
        {
            self.by_expiry.pop_first();
            self.ended.remove(&scope);
        }
    }
}
