//! Admissions against a model that keeps every job of the partition in a list.

use proptest::prelude::*;
use relay_protocol::JobId;

use super::dedup::{Body, DedupIndex, EndedJob, Scope};
use super::same::{Admission, Identities, Identity};

const WINDOW_MS: u64 = 50;

#[derive(Debug, Clone)]
enum Step {
    /// A record comes: number of its id, of its key, of its body, of the job that it redrives.
    Admit {
        id: u8,
        key: Option<u8>,
        body: u8,
        redrive_of: Option<u8>,
    },
    /// The end of the n-th job that has none is committed.
    End(usize),
    Wait(u64),
    /// The partition is assigned anew: what is not in the log is forgotten, and delivered again. Of holders of keys the log may
    /// say that they began.
    Assign {
        tells_begun: bool,
    },
    /// The n-th job comes of which the log says that it began.
    Come(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let redrive_of = prop::option::weighted(0.2, 0..6_u8);
    prop_oneof![
        6 => (0..6_u8, prop::option::weighted(0.7, 0..3_u8), 0..2_u8, redrive_of)
            .prop_map(|(id, key, body, redrive_of)| Step::Admit { id, key, body, redrive_of }),
        4 => any::<usize>().prop_map(Step::End),
        1 => (1..WINDOW_MS).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|tells_begun| Step::Assign { tells_begun }),
        2 => any::<usize>().prop_map(Step::Come),
    ]
}

fn job_id(number: u8) -> JobId {
    JobId::new(1, 0, u64::from(number))
}

/// A job of the model.
#[derive(Debug, Clone)]
struct Known {
    offset: u64,
    identity: Identity,
    /// It is the one that its key stands for.
    holds: bool,
    followers: Vec<u64>,
    ended: Option<EndedJob>,
    /// It began, and was not delivered yet.
    comes: bool,
}

impl Known {
    fn lives(&self, now_ms: u64) -> bool {
        self.ended.is_none_or(|job| job.expires_at_ms > now_ms)
    }

    fn key(&self) -> Option<Scope> {
        self.identity.by_key.map(|(scope, _)| scope)
    }
}

/// What the list says of a job; the newest holder of a key counts.
fn judge(known: &[Known], job: &Identity, now_ms: u64) -> Admission {
    // Once its end is known by its key, a job's id alone tells only those apart that have the key too.
    let by_id = |one: &&Known| {
        let ended_by_key = one.ended.is_some() && one.holds && one.key().is_some();
        one.identity.job_id == job.job_id && (!ended_by_key)
    };
    if known.iter().filter(|one| one.lives(now_ms)).any(|one| by_id(&one)) {
        return Admission::Same;
    }
    let Some((scope, body)) = job.by_key else { return Admission::New };
    let holder = known.iter().rev().find(|one| one.holds && one.key() == Some(scope));
    let Some(holder) = holder.filter(|one| one.lives(now_ms)) else { return Admission::New };
    let same_body = holder.identity.by_key.map(|(_, body)| body) == Some(body);
    let first = holder.identity.job_id;
    match holder.ended {
        Some(_) if first == job.job_id => Admission::Same,
        Some(_) if job.redrive_of == Some(first) => Admission::New,
        Some(ended) if same_body => Admission::Repeats(ended),
        None if same_body => Admission::Follows(first),
        _ => Admission::Reused(first),
    }
}

proptest! {
    #[test]
    fn admissions_are_those_of_the_list(steps in prop::collection::vec(step(), 1..60)) {
        let (mut same, mut known, mut now_ms) = (Identities::new(DedupIndex::new(1_000)), Vec::<Known>::new(), 0);
        for (offset, step) in steps.into_iter().enumerate() {
            let offset = offset as u64;
            match step {
                Step::Wait(ms) => {
                    now_ms += ms;
                    same.tick(now_ms);
                }
                Step::Assign { tells_begun } => {
                    let (ended, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|one| one.ended.is_some());
                    (known, same) = (ended, Identities::new(same.index().clone()));
                    let begun = others.into_iter().filter(|one| tells_begun && one.holds && one.key().is_some());
                    for one in begun {
                        let identity = Identity { redrive_of: None, ..one.identity };
                        same.has_begun(one.offset, &identity, now_ms);
                        if judge(&known, &identity, now_ms) == Admission::New {
                            known.push(Known { followers: Vec::new(), comes: true, ..one });
                        }
                    }
                }
                Step::Come(index) => {
                    let coming: Vec<usize> = (0..known.len()).filter(|at| known[*at].comes).collect();
                    let Some(at) = index.checked_rem(coming.len()).map(|index| coming[index]) else { continue };
                    let (offset, identity) = (known[at].offset, known[at].identity);
                    prop_assert_eq!(same.admit(offset, &identity, now_ms), Admission::New);
                    known[at].comes = false;
                }
                Step::Admit { id, key, body, redrive_of } => {
                    let identity = Identity {
                        job_id: job_id(id),
                        by_id: Scope::of_id("tenant", job_id(id)),
                        by_key: key.map(|key| (Scope::of_key("tenant", &key.to_string()), Body::new(&[body; 32]))),
                        redrive_of: redrive_of.map(job_id),
                    };
                    let wanted = judge(&known, &identity, now_ms);
                    prop_assert_eq!(same.admit(offset, &identity, now_ms), wanted);
                    if let Admission::Follows(first) = wanted {
                        let holder = known.iter_mut().find(|one| one.holds && one.identity.job_id == first && one.ended.is_none());
                        holder.unwrap().followers.push(offset);
                    }
                    if wanted != Admission::Same {
                        let holds = wanted == Admission::New;
                        known.push(Known { offset, identity, holds, followers: Vec::new(), ended: None, comes: false });
                    }
                }
                Step::End(index) => {
                    let running: Vec<usize> = (0..known.len()).filter(|at| known[*at].ended.is_none() && !known[*at].comes).collect();
                    let Some(at) = index.checked_rem(running.len()).map(|index| running[index]) else { continue };
                    let one = &mut known[at];
                    let by_key = one.identity.by_key.filter(|_| one.holds);
                    let job = EndedJob {
                        job_id: one.identity.job_id,
                        body: by_key.map(|(_, body)| body),
                        ended_at_ms: now_ms,
                        expires_at_ms: now_ms + WINDOW_MS,
                    };
                    one.ended = Some(job);
                    let scope = by_key.map_or(one.identity.by_id, |(scope, _)| scope);
                    prop_assert_eq!(same.committed(one.offset, Some((scope, job))), one.followers.clone());
                    if let Some((scope, body)) = by_key {
                        prop_assert_eq!(same.of_key(scope, body, now_ms), Some((job.job_id, true)));
                    }
                }
            }
        }
    }
}

#[test]
fn whoever_waits_for_a_job_that_never_comes_is_admitted_anew() {
    let identity = |id: u8, key: &str| Identity {
        job_id: job_id(id),
        by_id: Scope::of_id("tenant", job_id(id)),
        by_key: Some((Scope::of_key("tenant", key), Body::new(&[0; 32]))),
        redrive_of: None,
    };
    let (begun, follower, other) = (identity(1, "key"), identity(2, "key"), identity(3, "other"));
    let waiting = || {
        let mut same = Identities::new(DedupIndex::new(10));
        same.has_begun(5, &begun, 0);
        assert_eq!(same.admit(2, &follower, 0), Admission::Follows(job_id(1)));
        same
    };
    let mut same = waiting();
    assert_eq!(same.never_came(4, &other), [0_u64; 0], "it may come yet");
    assert_eq!(same.never_came(5, &begun), [0_u64; 0], "there it is");
    assert_eq!(same.admit(5, &begun, 0), Admission::New);
    // Another record lies in its place, or one behind it comes.
    for offset in [5, 6] {
        let mut same = waiting();
        assert_eq!(same.never_came(offset, &other), [2]);
        assert_eq!(same.admit(2, &follower, 0), Admission::New);
    }
}
