//! Properties of the core, against a model of a node: no submit is lost, no event is missed or shown twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use relay_protocol::hello::ErrorV1;
use relay_protocol::session::{AcceptedV1, EventV1, NoticeV1, ResumeV1, ResumedV1, SubmitInputV1, SubmitV1, WatchV1};
use relay_protocol::{ErrorCode, Frame, JobId, Message, frame};

use super::core::{Core, Effect};

/// Events after `accepted` of every job; the last is terminal.
const EVENTS: u64 = 5;

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Submit a new job, by an upload or inline.
    Submit { upload: bool },
    /// The node handles the oldest frame that is under way.
    Handle,
    /// The client handles the oldest frame that is under way.
    Hear,
    /// The connection breaks; what is under way is lost.
    Break,
    /// The client connects again, to a node that may not take tokens of others.
    Connect { takes_tokens: bool },
    /// The node has no room for the jobs of its next resume or watch.
    Busy,
    /// The handle of a job is full.
    Pause(usize),
    /// The handle of a job has room again.
    Rewatch(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(|upload| Step::Submit { upload }),
        8 => Just(Step::Handle),
        8 => Just(Step::Hear),
        1 => Just(Step::Break),
        2 => any::<bool>().prop_map(|takes_tokens| Step::Connect { takes_tokens }),
        1 => Just(Step::Busy),
        1 => (0..8_usize).prop_map(Step::Pause),
        2 => (0..8_usize).prop_map(Step::Rewatch),
    ];
    prop::collection::vec(step, 1..200)
}

/// What the user of the SDK sees.
#[derive(Default)]
struct Seen {
    accepted: BTreeSet<JobId>,
    refused: BTreeSet<JobId>,
    delivered: BTreeMap<JobId, Vec<u64>>,
}

#[derive(Default)]
struct World {
    core: Core,
    effects: Vec<Effect>,
    connected: bool,
    connections: u32,
    takes_tokens: bool,
    busy: bool,
    to_node: VecDeque<Frame>,
    to_client: VecDeque<Frame>,
    /// Jobs that the node took: they have all their events at once.
    taken: BTreeSet<JobId>,
    submitted: Vec<JobId>,
    requests: BTreeMap<u64, JobId>,
    paused: BTreeSet<JobId>,
    seen: Seen,
}

fn frame_of<M: Message>(message: &M) -> Frame {
    frame::split(frame::encode(message, b"{}").unwrap()).unwrap()
}

fn refusal(request: u64, code: ErrorCode, retry_after_ms: Option<u32>) -> ErrorV1 {
    let (code, retryable) = (code.as_str().to_owned(), code.retryable());
    ErrorV1 { request, code, message: String::new(), retryable, retry_after_ms }
}

fn no_room(request: u64, job_id: JobId) -> NoticeV1 {
    let code = ErrorCode::TooManyRequests.as_str().to_owned();
    let (message, retry_after_ms) = (String::new(), Some(1));
    NoticeV1 { request, job_id, code, message, retryable: true, retry_after_ms, goes_on: false }
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit { upload } => {
                let id = JobId::new(1_000, 0, self.submitted.len() as u64);
                self.submitted.push(id);
                self.submit(id, *upload, false);
            }
            Step::Handle => self.node(),
            Step::Hear => {
                if let Some(frame) = self.to_client.pop_front() {
                    self.core.on_frame(&frame, 0, &mut self.effects).unwrap();
                }
            }
            Step::Break if self.connected => {
                self.connected = false;
                self.to_node.clear();
                self.to_client.clear();
                self.core.lost(&mut self.effects);
            }
            Step::Busy => self.busy = true,
            Step::Connect { takes_tokens } if !self.connected => {
                (self.connected, self.takes_tokens) = (true, *takes_tokens);
                self.connections += 1;
                self.core.connected(format!("token-{}", self.connections), 0, &mut self.effects);
            }
            Step::Pause(index) => {
                if let Some(id) = self.submitted.get(*index).filter(|id| self.seen.accepted.contains(id)) {
                    self.core.pause(id);
                    self.paused.insert(*id);
                }
            }
            Step::Rewatch(index) => {
                if let Some(id) = self.submitted.get(*index).copied() {
                    self.rewatch(id);
                }
            }
            Step::Break | Step::Connect { .. } => {}
        }
        self.carry_out();
    }

    fn rewatch(&mut self, id: JobId) {
        if self.paused.remove(&id) {
            let last = self.seen.delivered.get(&id).and_then(|seqs| seqs.last()).copied().unwrap_or(1);
            self.core.rewatch(id, last, &mut self.effects);
        }
    }

    fn submit(&mut self, job_id: JobId, upload: bool, again: bool) {
        let input = if upload { SubmitInputV1::Upload(1) } else { SubmitInputV1::Inline };
        let submit = SubmitV1 {
            request: 0,
            job_id,
            lane: "default".to_owned(),
            task: "probe".to_owned(),
            model: String::new(),
            params: "{}".to_owned(),
            input,
            name: String::new(),
            media_type: String::new(),
            priority: 1,
            idempotency_key: None,
            deadline_ms: None,
            not_before_ms: None,
            traceparent: None,
            sent_at_us: 0,
            watch: true,
        };
        let request = self.core.submit(submit, Bytes::from_static(b"x"), again, &mut self.effects);
        self.requests.insert(request, job_id);
    }

    /// As a node does: a job that was taken before gets its receipt again, but no events without a resume.
    fn node(&mut self) {
        let Some(frame) = self.to_node.pop_front() else { return };
        match frame.kind {
            SubmitV1::KIND => {
                let SubmitV1 { request, job_id, .. } = frame.head().unwrap();
                if job_id.as_bytes()[15] % 5 == 4 {
                    return self.to_client.push_back(frame_of(&refusal(request, ErrorCode::UnknownLane, None)));
                }
                let fresh = self.taken.insert(job_id);
                self.to_client.push_back(frame_of(&AcceptedV1 { request, job_id, at_ms: 1 }));
                if fresh {
                    self.events(job_id, 1);
                }
            }
            ResumeV1::KIND => {
                let ResumeV1 { request, resume_token, jobs } = frame.head().unwrap();
                if !self.takes_tokens && resume_token != format!("token-{}", self.connections) {
                    let refusal = refusal(request, ErrorCode::InvalidResumeToken, None);
                    return self.to_client.push_back(frame_of(&refusal));
                }
                let busy = std::mem::take(&mut self.busy);
                self.to_client.push_back(frame_of(&ResumedV1 { request, jobs: jobs.len() as u32 }));
                for (job_id, after_seq) in jobs {
                    assert!(self.taken.contains(&job_id), "only jobs that the node took are resumed");
                    if busy {
                        self.to_client.push_back(frame_of(&no_room(request, job_id)));
                        continue;
                    }
                    // One too early: the client must not show it twice.
                    self.events(job_id, after_seq.saturating_sub(1));
                }
            }
            WatchV1::KIND => {
                let WatchV1 { request, job_id, after_seq } = frame.head().unwrap();
                assert!(self.taken.contains(&job_id), "only jobs that the node took are watched");
                if std::mem::take(&mut self.busy) {
                    let refusal = refusal(request, ErrorCode::TooManyRequests, Some(1));
                    return self.to_client.push_back(frame_of(&refusal));
                }
                self.events(job_id, after_seq);
            }
            _ => {}
        }
    }

    fn events(&mut self, job_id: JobId, after_seq: u64) {
        for seq in (after_seq + 1)..=(1 + EVENTS) {
            let event = EventV1 { job_id, seq, terminal: seq == 1 + EVENTS, sent_at_us: 0 };
            self.to_client.push_back(frame_of(&event));
        }
    }

    fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.one(effect);
            }
        }
    }

    fn one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(bytes) => {
                assert!(self.connected, "nothing is sent without a connection");
                self.to_node.push_back(frame::split(bytes).unwrap());
            }
            Effect::Accepted { request, job_id, .. } => {
                assert_eq!(self.requests[&request], job_id);
                assert!(self.seen.accepted.insert(job_id), "accepted twice");
            }
            Effect::Failed { request, .. } => assert!(self.seen.refused.insert(self.requests[&request])),
            Effect::Deliver(event) => {
                assert!(self.seen.accepted.contains(&event.job_id), "an event before the receipt");
                self.seen.delivered.entry(event.job_id).or_default().push(event.seq);
                if event.terminal {
                    self.core.end_job(&event.job_id);
                    self.paused.remove(&event.job_id);
                }
            }
            // As the client does: upload again and submit the same job again.
            Effect::Lost { request } => {
                let id = self.requests[&request];
                self.submit(id, true, true);
            }
            Effect::Retry { job_id, .. } => self.core.retry(job_id, &mut self.effects),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// The connection holds from now on, and everything under way arrives.
    fn settle(&mut self) {
        self.step(&Step::Connect { takes_tokens: true });
        for id in self.submitted.clone() {
            self.rewatch(id);
        }
        self.carry_out();
        while !self.to_node.is_empty() || !self.to_client.is_empty() {
            self.step(&Step::Handle);
            self.step(&Step::Hear);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_submit_is_lost_and_no_event_comes_twice(steps in steps()) {
        let mut world = World::default();
        world.step(&Step::Connect { takes_tokens: true });
        for step in &steps {
            world.step(step);
        }
        world.settle();
        for id in &world.submitted {
            let refused = world.seen.refused.contains(id);
            prop_assert!(refused != world.seen.accepted.contains(id), "{id} is either accepted or refused");
            let delivered = world.seen.delivered.remove(id).unwrap_or_default();
            let expected: Vec<u64> = if refused { Vec::new() } else { (2..=1 + EVENTS).collect() };
            prop_assert_eq!(delivered, expected, "{}", id);
        }
    }
}
