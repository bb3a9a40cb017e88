//! The waiting room: jobs that were read ahead and wait for their turn. Pure: time is passed in.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use relay_protocol::{JobId, Priority};

use super::line::{Line, Spot};
use crate::fair::{Turns, Weights};
use crate::tenants::turns::Tenant;

/// What the room must know of a job.
pub trait Waiting {
    /// Its id.
    fn job_id(&self) -> JobId;
    /// Its priority.
    fn priority(&self) -> Priority;
    /// Not before this, in milliseconds since the Unix epoch.
    fn not_before_ms(&self) -> Option<u64>;
    /// Ended at this, in milliseconds since the Unix epoch.
    fn deadline_ms(&self) -> Option<u64>;
    /// Partition of its lane.
    fn partition(&self) -> u32;
    /// Whose it is.
    fn tenant(&self) -> &str;
    /// With which model it is done, if it says so.
    fn model(&self) -> Option<&str>;
    /// Whether a node may have died of it.
    fn is_suspect(&self) -> bool {
        false
    }
}

/// Jobs that wait.
#[derive(Debug)]
pub struct Room<T> {
    /// By priority.
    waiting: [Line<T>; 3],
    /// Not before a time; then in the order they came.
    later: BTreeMap<(u64, u64), T>,
    places: HashMap<JobId, Place>,
    came: u64,
    turns: Turns,
    of_tenant: HashMap<Tenant, usize>,
    of_model: HashMap<String, usize>,
}

/// Jobs in the room that one tenant, and one model, may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of one tenant.
    pub tenant_jobs_max: usize,
    /// Of one model; jobs without one do not count.
    pub model_jobs_max: usize,
}

impl Shares {
    /// Fractions of a room of `jobs_max`, at least one job each.
    pub fn of(jobs_max: usize, tenant_share_max: f64, model_share_max: f64) -> Self {
        let jobs = |share: f64| ((jobs_max as f64 * share) as usize).max(1);
        Self { tenant_jobs_max: jobs(tenant_share_max), model_jobs_max: jobs(model_share_max) }
    }
}

#[derive(Debug, Clone)]
enum Place {
    Waiting(Priority, Spot),
    Later((u64, u64)),
}

impl<T: Waiting> Room<T> {
    /// Nobody waits; turns go by these weights.
    pub fn new(weights: Weights) -> Self {
        let turns = Turns::new(weights);
        Self {
            waiting: std::array::from_fn(|_| Line::default()),
            later: BTreeMap::new(),
            places: HashMap::new(),
            came: 0,
            turns,
            of_tenant: HashMap::new(),
            of_model: HashMap::new(),
        }
    }

    /// Jobs in the room.
    pub fn len(&self) -> usize {
        self.waiting.iter().map(Line::len).sum::<usize>() + self.later.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A job comes in at `now_ms`.
    pub fn push(&mut self, now_ms: u64, job: T) {
        self.came += 1;
        *self.of_tenant.entry(self.tenant(job.tenant())).or_default() += 1;
        if let Some(model) = job.model() {
            *self.of_model.entry(model.to_owned()).or_default() += 1;
        }
        match job.not_before_ms() {
            Some(at) if at > now_ms => {
                self.places.insert(job.job_id(), Place::Later((at, self.came)));
                self.later.insert((at, self.came), job);
            }
            _ => self.queue(self.came, job),
        }
    }

    /// Whether so many `more` jobs of this tenant and model may come in within these shares.
    pub fn has_place(&self, tenant: &str, model: Option<&str>, more: usize, shares: &Shares) -> bool {
        let of = |count: Option<&usize>| count.copied().unwrap_or_default() + more;
        of(self.of_tenant.get(tenant)) <= shares.tenant_jobs_max
            && model.is_none_or(|model| of(self.of_model.get(model)) <= shares.model_jobs_max)
    }

    /// The name of a tenant, once for all of its jobs.
    fn tenant(&self, name: &str) -> Tenant {
        self.of_tenant.get_key_value(name).map_or_else(|| name.into(), |(tenant, _)| tenant.clone())
    }

    fn left(&mut self, job: &T) {
        one_less(&mut self.of_tenant, job.tenant());
        if let Some(model) = job.model() {
            one_less(&mut self.of_model, model);
        }
    }

    fn line(&mut self, priority: Priority) -> &mut Line<T> {
        &mut self.waiting[usize::from(priority.to_wire())]
    }

    fn queue(&mut self, came: u64, job: T) {
        let (priority, spot) = (job.priority(), (self.tenant(job.tenant()), came));
        self.places.insert(job.job_id(), Place::Waiting(priority, spot.clone()));
        self.line(priority).insert(spot, job);
    }

    /// The job whose turn it is at `now_ms`: each priority has its turn, and in each the tenants, by the `weight` of each.
    pub fn pop(&mut self, now_ms: u64, weight: impl Fn(&str) -> u32) -> Option<T> {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now_ms) {
            let ((_, came), job) = first.remove_entry();
            self.queue(came, job);
        }
        let order = self.turns.order();
        let (priority, spot) = order.into_iter().find_map(|one| Some((one, self.line(one).next()?)))?;
        self.turns.took(priority);
        let job = self.line(priority).remove(&spot)?;
        self.line(priority).took(&spot.0, weight(&spot.0));
        self.places.remove(&job.job_id());
        self.left(&job);
        Some(job)
    }

    /// When the room must be looked at again though nothing happens: the earliest `not_before`.
    pub fn wake_at_ms(&self) -> Option<u64> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// A job that waits.
    pub fn get(&self, job_id: JobId) -> Option<&T> {
        match self.places.get(&job_id)? {
            Place::Waiting(priority, spot) => self.waiting[usize::from(priority.to_wire())].get(spot),
            Place::Later(key) => self.later.get(key),
        }
    }

    /// Takes out one job.
    pub fn remove(&mut self, job_id: JobId) -> Option<T> {
        let job = match self.places.remove(&job_id)? {
            Place::Waiting(priority, spot) => self.line(priority).remove(&spot),
            Place::Later(key) => self.later.remove(&key),
        }?;
        self.left(&job);
        Some(job)
    }

    /// Takes out the jobs whose deadline has passed at `now_ms`.
    pub fn take_expired(&mut self, now_ms: u64) -> Vec<T> {
        let expired = |job: &T| job.deadline_ms().is_some_and(|at| at <= now_ms);
        self.take_all(expired)
    }

    fn take_all(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let all = self.waiting.iter().flat_map(Line::values).chain(self.later.values());
        let ids: Vec<JobId> = all.filter(|job| wanted(job)).map(T::job_id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Forgets the jobs of a partition that is no longer ours.
    pub fn drop_partition(&mut self, partition: u32) {
        drop(self.take_all(|job| job.partition() == partition));
    }
}

fn one_less<K: Hash + Eq + Borrow<str>>(counts: &mut HashMap<K, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}
