//! Which delivered job is one that its partition has, or had, already. Pure: time is passed in.
//!
//! A job holds its key (or, without one, its id) from its admission on until its end is committed; after that the
//! [`DedupIndex`] knows it. Another job with a held key waits for the holder's end and repeats it.

use std::collections::{BTreeMap, HashMap, HashSet};

use relay_protocol::JobId;
use relay_protocol::record::KeyHolder;

use super::dedup::{Body, DedupIndex, EndedJob, Scope};

/// What tells jobs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The job's id.
    pub job_id: JobId,
    /// Tenant and id.
    pub by_id: Scope,
    /// Tenant and idempotency key, and what is to be done.
    pub by_key: Option<(Scope, Body)>,
    /// The dead-lettered job that it repeats on purpose: that one's key does not stop it.
    pub redrive_of: Option<JobId>,
}

impl Identity {
    fn scope(&self) -> Scope {
        self.by_key.map_or(self.by_id, |(scope, _)| scope)
    }
}

impl Identity {
    /// Of a job that holds a key; `None` if its digest is none.
    pub fn of_holder(holder: &KeyHolder) -> Option<Self> {
        let body = Body::read(&holder.body_sha256)?;
        Some(Self {
            job_id: holder.job_id,
            by_id: Scope::of_id(&holder.tenant, holder.job_id),
            by_key: Some((Scope::of_key(&holder.tenant, &holder.idempotency_key), body)),
            redrive_of: None,
        })
    }
}

/// What a delivered job is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// New work.
    New,
    /// The very job: it waits, runs, or ended within the window.
    Same,
    /// Another job with the key of this one, which has not ended: kept until it has.
    Follows(JobId),
    /// Another job with the key of this one, which ended.
    Repeats(EndedJob),
    /// Another job with the key of this one, but another body.
    Reused(JobId),
}

/// What is known of the jobs of one partition.
#[derive(Debug)]
pub struct Identities {
    index: DedupIndex,
    /// Jobs whose end is not committed, by offset: their id, and the scope that they hold.
    claims: HashMap<u64, (Scope, Option<Scope>)>,
    ids: HashSet<Scope>,
    holders: HashMap<Scope, Holder>,
    /// Jobs that are set aside or on their way back, by id: the scope that they hold.
    aside: HashMap<Scope, Option<Scope>>,
    /// Jobs that hold their key already and come later, by offset: their ids.
    begun: BTreeMap<u64, Scope>,
}

#[derive(Debug)]
struct Holder {
    job_id: JobId,
    body: Option<Body>,
    /// Offsets of the jobs that wait for its end.
    followers: Vec<u64>,
}

impl Identities {
    /// Nothing is known but what ended.
    pub fn new(index: DedupIndex) -> Self {
        Self {
            index,
            claims: HashMap::new(),
            ids: HashSet::new(),
            holders: HashMap::new(),
            aside: HashMap::new(),
            begun: BTreeMap::new(),
        }
    }

    /// What ended.
    pub fn index(&self) -> &DedupIndex {
        &self.index
    }

    /// A job of this identity was delivered at `offset`.
    pub fn admit(&mut self, offset: u64, job: &Identity, now_ms: u64) -> Admission {
        if self.begun.remove(&offset).is_some() {
            return Admission::New;
        }
        let admission = self.judge(job, now_ms);
        let holds = match admission {
            Admission::Same => return Admission::Same,
            Admission::New => {
                let body = job.by_key.map(|(_, body)| body);
                self.holders.insert(job.scope(), Holder { job_id: job.job_id, body, followers: Vec::new() });
                Some(job.scope())
            }
            Admission::Follows(_) => {
                if let Some(holder) = self.holders.get_mut(&job.scope()) {
                    holder.followers.push(offset);
                }
                None
            }
            Admission::Repeats(_) | Admission::Reused(_) => None,
        };
        self.claims.insert(offset, (job.by_id, holds));
        self.ids.insert(job.by_id);
        admission
    }

    /// The job at `offset`, which comes later, began under an earlier owner: what has its key too may lie before it, and waits for it.
    /// If another one stands for its key, it is judged when it comes.
    pub fn has_begun(&mut self, offset: u64, job: &Identity, now_ms: u64) {
        if job.by_key.is_some() && self.judge(job, now_ms) == Admission::New {
            self.admit(offset, job, now_ms);
            self.begun.insert(offset, job.by_id);
        }
    }

    /// `job` is delivered at `offset`: jobs that were to come before it, or there, will not. Returns the offsets of those that wait for them,
    /// to be admitted anew.
    pub fn never_came(&mut self, offset: u64, job: &Identity) -> Vec<u64> {
        let is_gone = |at: &u64, by_id: &Scope| *at < offset || *by_id != job.by_id;
        let gone: Vec<u64> =
            self.begun.range(..=offset).filter(|(at, by_id)| is_gone(at, by_id)).map(|(at, _)| *at).collect();
        let mut orphans = Vec::new();
        for at in gone {
            self.begun.remove(&at);
            orphans.extend(self.committed(at, None));
        }
        for orphan in &orphans {
            if let Some((by_id, _)) = self.claims.remove(orphan) {
                self.ids.remove(&by_id);
            }
        }
        orphans
    }

    /// It is committed that the job at `offset` is set aside: it keeps its id and key.
    pub fn set_aside(&mut self, offset: u64) {
        if let Some((by_id, holds)) = self.claims.remove(&offset) {
            self.aside.insert(by_id, holds);
        }
    }

    /// A job is set aside, whoever did it.
    pub fn is_aside(&mut self, job: &Identity) {
        if !self.ids.insert(job.by_id) {
            return;
        }
        let holder = || Holder { job_id: job.job_id, body: job.by_key.map(|(_, body)| body), followers: Vec::new() };
        let scope = job.scope();
        let holds = self.holders.entry(scope).or_insert_with(holder).job_id == job.job_id;
        self.aside.insert(job.by_id, holds.then_some(scope));
    }

    /// A job that was set aside is back at `offset`; `false` if nothing is known of that.
    pub fn is_back(&mut self, offset: u64, job: &Identity) -> bool {
        let Some(holds) = self.aside.remove(&job.by_id) else { return false };
        self.claims.insert(offset, (job.by_id, holds));
        true
    }

    /// The end of a job that is set aside is committed. Returns the offsets of the jobs that waited for it.
    pub fn ended_aside(&mut self, by_id: Scope, (scope, job): (Scope, EndedJob)) -> Vec<u64> {
        self.index.insert(scope, job);
        self.ids.remove(&by_id);
        let holds = self.aside.remove(&by_id).flatten();
        holds.and_then(|scope| self.holders.remove(&scope)).map(|holder| holder.followers).unwrap_or_default()
    }

    fn judge(&self, job: &Identity, now_ms: u64) -> Admission {
        if self.ids.contains(&job.by_id) || self.index.get(job.by_id, now_ms).is_some() {
            return Admission::Same;
        }
        let Some((scope, body)) = job.by_key else { return Admission::New };
        if let Some(holder) = self.holders.get(&scope) {
            let same = holder.body == Some(body);
            return if same { Admission::Follows(holder.job_id) } else { Admission::Reused(holder.job_id) };
        }
        match self.index.get(scope, now_ms) {
            None => Admission::New,
            Some(ended) if ended.job_id == job.job_id => Admission::Same,
            Some(ended) if job.redrive_of == Some(ended.job_id) => Admission::New,
            Some(ended) if ended.body == Some(body) => Admission::Repeats(*ended),
            Some(ended) => Admission::Reused(ended.job_id),
        }
    }

    /// The job that this key stands for, and whether it does the same.
    pub fn of_key(&self, scope: Scope, body: Body, now_ms: u64) -> Option<(JobId, bool)> {
        let held = self.holders.get(&scope).map(|holder| (holder.job_id, holder.body));
        let (job_id, found) = held.or_else(|| self.index.get(scope, now_ms).map(|job| (job.job_id, job.body)))?;
        Some((job_id, found == Some(body)))
    }

    /// The end of the job at `offset` is committed, with what is known of it from now on. Returns the offsets of the jobs
    /// that waited for it.
    pub fn committed(&mut self, offset: u64, ended: Option<(Scope, EndedJob)>) -> Vec<u64> {
        if let Some((scope, job)) = ended {
            self.index.insert(scope, job);
        }
        let Some((by_id, holds)) = self.claims.remove(&offset) else { return Vec::new() };
        self.ids.remove(&by_id);
        holds.and_then(|scope| self.holders.remove(&scope)).map(|holder| holder.followers).unwrap_or_default()
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.index.forget_expired(now_ms);
    }
}
