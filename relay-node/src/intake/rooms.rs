//! The waiting rooms of a lane: one for ordinary jobs, one for suspects, which leave it one at a time. Pure.

use relay_protocol::JobId;

use super::room::{Room, Shares, Waiting};
use crate::fair::Weights;

/// What waits, suspects apart.
#[derive(Debug)]
pub struct Rooms<T> {
    ordinary: Room<T>,
    suspects: Room<T>,
}

impl<T: Waiting> Rooms<T> {
    /// Nobody waits; turns go by these weights.
    pub fn new(weights: Weights) -> Self {
        Self { ordinary: Room::new(weights), suspects: Room::new(weights) }
    }

    /// Jobs in both.
    pub fn len(&self) -> usize {
        self.ordinary.len() + self.suspects.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Suspects that wait.
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// A job comes in at `now_ms`.
    pub fn push(&mut self, now_ms: u64, job: T) {
        let room = if job.is_suspect() { &mut self.suspects } else { &mut self.ordinary };
        room.push(now_ms, job);
    }

    /// Whether so many `more` ordinary jobs of this tenant and model may come in within these shares.
    pub fn has_place(&self, tenant: &str, model: Option<&str>, more: usize, shares: &Shares) -> bool {
        self.ordinary.has_place(tenant, model, more, shares)
    }

    /// The job whose turn it is at `now_ms`. A suspect, if one may run, goes first: it was there before the others.
    /// Tenants take turns by their `weight`.
    pub fn pop(&mut self, now_ms: u64, with_suspects: bool, weight: impl Fn(&str) -> u32) -> Option<T> {
        let suspect = if with_suspects { self.suspects.pop(now_ms, &weight) } else { None };
        suspect.or_else(|| self.ordinary.pop(now_ms, &weight))
    }

    /// A job that waits.
    pub fn get(&self, job_id: JobId) -> Option<&T> {
        self.ordinary.get(job_id).or_else(|| self.suspects.get(job_id))
    }

    /// Takes out one job.
    pub fn remove(&mut self, job_id: JobId) -> Option<T> {
        self.ordinary.remove(job_id).or_else(|| self.suspects.remove(job_id))
    }

    /// Takes out the jobs whose deadline has passed at `now_ms`.
    pub fn take_expired(&mut self, now_ms: u64) -> Vec<T> {
        let mut expired = self.ordinary.take_expired(now_ms);
        expired.append(&mut self.suspects.take_expired(now_ms));
        expired
    }

    /// Forgets the jobs of a partition that is no longer ours.
    pub fn drop_partition(&mut self, partition: u32) {
        self.ordinary.drop_partition(partition);
        self.suspects.drop_partition(partition);
    }
}
