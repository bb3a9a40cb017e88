//! A client: it submits jobs over sessions, comes back to any node when a connection breaks, and writes down what it hears.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use relay_protocol::hello::{ErrorV1, HelloV1, PingV1, PongV1, WelcomeV1};
use relay_protocol::session::{
    AcceptedV1, CancelOutcomeV1, CancelReplyV1, CancelV1, EventV1, NoticeV1, ResumeV1, ResumedV1, SubmitInputV1,
    SubmitV1, WatchV1,
};
use relay_protocol::{ErrorCode, Event, Frame, JobId, Message};
use relay_runtime::clock::Clock as _;
use relay_runtime::random::{Random, SeededRandom};
use tokio::time::Instant;

use super::clock::VirtualClock;
use super::cluster::Cluster;
use super::counts::Fault;
use super::history::{History, Submitted};
use super::socket::Socket;

/// Silence after which a client gives a connection up; nodes ping more often.
const SILENCE: Duration = Duration::from_secs(4);
/// Wait before a request that failed is made again.
const AGAIN: Duration = Duration::from_millis(400);
/// How often a client looks at what is due.
const LOOK: Duration = Duration::from_millis(100);
/// Attempts of a job that says nothing of them.
pub(super) const ATTEMPTS_MAX: u32 = 3;
/// Any trace will do, as long as it is the same in each run.
pub(super) const TRACE: &str = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";

/// A job as a client knows it.
struct Job {
    submit: SubmitV1,
    due: Instant,
    cancel_at: Option<Instant>,
    /// A producer submitted it: it is watched only.
    outside: bool,
    /// How often it was submitted.
    sent: u32,
    /// Events before the answer to this request belong to an earlier watch.
    resuming: Option<u64>,
    /// When it is to be resumed, because its watch has ended.
    again_at: Option<Instant>,
    accepted: bool,
    over: bool,
    last_seq: u64,
}

impl Job {
    fn new(submit: SubmitV1, due: Instant, cancel_at: Option<Instant>) -> Self {
        let (outside, accepted, over) = (false, false, false);
        Self { submit, due, cancel_at, outside, sent: 0, resuming: None, again_at: None, accepted, over, last_seq: 0 }
    }
}

/// A submit that says nothing.
fn nothing() -> SubmitV1 {
    SubmitV1 {
        request: 0,
        job_id: JobId::new(0, 0, 0),
        lane: String::new(),
        task: String::new(),
        model: String::new(),
        params: String::new(),
        input: SubmitInputV1::Inline,
        name: String::new(),
        media_type: String::new(),
        priority: 1,
        idempotency_key: None,
        deadline_ms: None,
        not_before_ms: None,
        traceparent: None,
        sent_at_us: 0,
        watch: true,
    }
}

/// A client.
pub(super) struct Client {
    name: String,
    cluster: Rc<Cluster>,
    history: Rc<RefCell<History>>,
    random: SeededRandom,
    clock: VirtualClock,
    jobs: BTreeMap<JobId, Job>,
    /// Open requests to cancel, and whether the job's end had been heard.
    cancels: BTreeMap<u64, (JobId, bool)>,
    requests: u64,
    /// Jobs of the producer that it knows of.
    taken_up: usize,
    token: String,
}

/// How many jobs, and in which time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) jobs: u64,
    pub(super) within: Duration,
}

impl Client {
    /// A client with its jobs planned.
    pub(super) fn new(name: &str, cluster: Rc<Cluster>, history: Rc<RefCell<History>>, seed: u64, load: Load) -> Self {
        let clock = cluster.clock();
        let mut client = Self {
            name: name.to_owned(),
            cluster,
            history,
            random: SeededRandom::new(seed),
            clock,
            jobs: BTreeMap::new(),
            cancels: BTreeMap::new(),
            requests: 0,
            taken_up: 0,
            token: String::new(),
        };
        for n in 0..load.jobs {
            client.plan(n, load.within);
        }
        client
    }

    fn chance(&self, per_cent: u64) -> bool {
        self.random.below(100) < per_cent
    }

    fn plan(&mut self, n: u64, within: Duration) {
        let after = Duration::from_millis(self.random.below(within.as_millis() as u64));
        let now_ms = self.clock.now_ms() + after.as_millis() as u64;
        let job_id = JobId::new(now_ms, self.random.below(2) as u32, self.random.next_u64());
        let key = self.chance(35).then(|| format!("key-{}", self.random.below(4)));
        let builtin = self.chance(15);
        let deadline = self.chance(15).then(|| now_ms + 300 + self.random.below(8_000));
        let not_before = self.chance(15).then(|| now_ms + self.random.below(5_000));
        let due = Instant::now() + after;
        let cancel_at = self.chance(30).then(|| due + Duration::from_millis(self.random.below(4_000)));
        let model = if self.chance(70) { "m1" } else { "m2" };
        let submit = SubmitV1 {
            job_id,
            lane: "default".to_owned(),
            task: if builtin { "probe" } else { "transcribe" }.to_owned(),
            model: if builtin { "" } else { model }.to_owned(),
            priority: self.random.below(3) as u8,
            idempotency_key: key.clone(),
            deadline_ms: deadline,
            not_before_ms: not_before.filter(|at| deadline.is_none_or(|deadline| *at < deadline)),
            traceparent: Some(TRACE.to_owned()),
            sent_at_us: n,
            ..nothing()
        };
        let submitted = Submitted {
            key: key.map(|key| ("default".to_owned(), key)),
            has_deadline: deadline.is_some(),
            attempts_max: ATTEMPTS_MAX,
            ..Submitted::default()
        };
        self.history.borrow_mut().jobs.insert(job_id, submitted);
        self.jobs.insert(job_id, Job::new(submit, due, cancel_at));
    }

    /// Takes up what the producer wrote since the last time: it is watched, and cancelled at times.
    fn take_up(&mut self) {
        let cluster = self.cluster.clone();
        for job_id in cluster.outside.borrow().iter().skip(self.taken_up) {
            self.taken_up += 1;
            let due = Instant::now() + Duration::from_millis(self.random.below(1_500));
            let cancel_at = self.chance(15).then(|| due + Duration::from_millis(self.random.below(3_000)));
            let submit = SubmitV1 { job_id: *job_id, ..nothing() };
            let job = Job { outside: true, accepted: true, ..Job::new(submit, due, cancel_at) };
            self.jobs.insert(*job_id, job);
        }
    }

    /// What it still waits for.
    fn open(&self) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, job)| !job.over).map(|(id, _)| *id).collect()
    }

    fn is_done(&self) -> bool {
        self.open().is_empty() && !self.cluster.producing.get()
    }

    /// Runs until all its jobs are over.
    pub(super) async fn run(mut self) {
        self.cluster.waits(&self.name, self.open());
        while !self.is_done() {
            if let Some(node) = self.cluster.any_node(&self.random)
                && let Some(socket) = Socket::connect(&node).await
            {
                self.session(socket).await;
            }
            self.cluster.waits(&self.name, self.open());
            tokio::time::sleep(Duration::from_millis(20 + self.random.below(300))).await;
        }
    }

    /// One connection, until it breaks; `None` says so.
    async fn session(&mut self, mut socket: Socket) -> Option<()> {
        self.greet(&mut socket).await?;
        let cut = self.cluster.engine().faulty.load(std::sync::atomic::Ordering::Relaxed) && self.chance(60);
        let cut_at = cut.then(|| Instant::now() + Duration::from_millis(self.random.below(6_000)));
        let mut heard_at = Instant::now();
        // What was sent on another connection and not acknowledged is sent again.
        for job in self.jobs.values_mut().filter(|job| job.sent > 0 && !job.accepted && !job.over) {
            job.due = Instant::now();
            self.cluster.counts().fault(Fault::Resubmitted);
        }
        loop {
            tokio::select! {
                biased;
                frame = socket.next() => {
                    heard_at = Instant::now();
                    self.on_frame(&socket, frame?).await?;
                }
                () = tokio::time::sleep(LOOK) => self.do_what_is_due(&socket).await?,
            }
            if heard_at.elapsed() > SILENCE || self.is_done() {
                return None;
            }
            if cut_at.is_some_and(|at| at <= Instant::now()) {
                self.cluster.counts().fault(Fault::ClientCut);
                return None;
            }
        }
    }

    async fn greet(&mut self, socket: &mut Socket) -> Option<()> {
        let hello = HelloV1 {
            version_min: 1,
            version_max: 1,
            capabilities: vec!["jobs".to_owned()],
            client: self.name.clone(),
            token: None,
            sent_at_us: 0,
        };
        socket.send(&hello, b"").await?;
        let frame = tokio::time::timeout(SILENCE, socket.next()).await.ok()??;
        let welcome: WelcomeV1 = frame.head().ok().filter(|_| frame.kind == WelcomeV1::KIND)?;
        self.jobs.values_mut().for_each(|job| (job.resuming, job.again_at) = (None, None));
        let open: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.accepted && !job.over && job.submit.request > 0)
            .map(|(id, _)| *id)
            .collect();
        if !open.is_empty() {
            self.resume(socket, &open).await?;
        }
        self.token = welcome.resume_token;
        Some(())
    }

    async fn resume(&mut self, socket: &Socket, jobs: &[JobId]) -> Option<()> {
        self.requests += 1;
        let mut resumed = Vec::new();
        for job_id in jobs {
            let job = self.jobs.get_mut(job_id)?;
            job.resuming = Some(self.requests);
            resumed.push((*job_id, job.last_seq));
        }
        let resume = ResumeV1 { request: self.requests, resume_token: self.token.clone(), jobs: resumed };
        socket.send(&resume, b"").await
    }

    async fn do_what_is_due(&mut self, socket: &Socket) -> Option<()> {
        self.take_up();
        let (now, mut again) = (Instant::now(), Vec::new());
        for job in self.jobs.values_mut() {
            if job.outside && job.submit.request == 0 && !job.over && job.due <= now {
                self.requests += 1;
                job.submit.request = self.requests;
                let watch = WatchV1 { request: self.requests, job_id: job.submit.job_id, after_seq: job.last_seq };
                socket.send(&watch, b"").await?;
            }
            if !job.over && !job.accepted && job.due <= now {
                self.requests += 1;
                job.submit.request = self.requests;
                job.sent += 1;
                job.due = now + Duration::from_secs(60);
                socket.send(&job.submit, b"sound").await?;
            }
            if job.again_at.take_if(|at| *at <= now).is_some() {
                again.push(job.submit.job_id);
            }
            if job.accepted && job.cancel_at.is_some_and(|at| at <= now) {
                job.cancel_at = None;
                self.requests += 1;
                let job_id = job.submit.job_id;
                self.cancels.insert(self.requests, (job_id, job.over));
                if let Some(submitted) = self.history.borrow_mut().jobs.get_mut(&job_id) {
                    submitted.cancelled = true;
                }
                socket.send(&CancelV1 { request: self.requests, job_id, sent_at_us: 0 }, b"").await?;
            }
        }
        if !again.is_empty() {
            self.resume(socket, &again).await?;
        }
        Some(())
    }

    async fn on_frame(&mut self, socket: &Socket, frame: Frame) -> Option<()> {
        match frame.kind {
            AcceptedV1::KIND => {
                let accepted: AcceptedV1 = frame.head().ok()?;
                if let Some(submitted) = self.history.borrow_mut().jobs.get_mut(&accepted.job_id) {
                    submitted.accepted = true;
                }
                let job = self.jobs.get_mut(&accepted.job_id)?;
                job.accepted = true;
                let again = job.sent > 1;
                self.hear(&frame.payload);
                // What happened before this submit follows only then.
                if again {
                    self.resume(socket, &[accepted.job_id]).await?;
                }
            }
            EventV1::KIND => self.hear(&frame.payload),
            CancelReplyV1::KIND => {
                let reply: CancelReplyV1 = frame.head().ok()?;
                let (_, was_over) = self.cancels.remove(&reply.request)?;
                let (had_end, mut history) = (self.cluster.has_end(reply.job_id), self.history.borrow_mut());
                match reply.outcome {
                    CancelOutcomeV1::AlreadyEnded => history.ended_answers.push((reply.job_id, had_end)),
                    CancelOutcomeV1::Requested => history.late_cancels.extend(was_over.then_some(reply.job_id)),
                }
            }
            ResumedV1::KIND => {
                let request = frame.head::<ResumedV1>().ok()?.request;
                self.jobs.values_mut().filter(|job| job.resuming == Some(request)).for_each(|job| job.resuming = None);
            }
            PingV1::KIND => {
                let ping: PingV1 = frame.head().ok()?;
                let pong = PongV1 { nonce: ping.nonce, ping_sent_at_us: ping.sent_at_us, sent_at_us: 0 };
                socket.send(&pong, b"").await?;
            }
            NoticeV1::KIND => self.on_notice(&frame.head().ok()?),
            ErrorV1::KIND => return self.on_error(&frame.head().ok()?),
            _ => {}
        }
        Some(())
    }

    fn hear(&mut self, json: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(json) else { return };
        let Some(job) = self.jobs.get_mut(&event.job_id).filter(|job| job.resuming.is_none()) else { return };
        if !super::history::is_revocable(event.event) {
            // Whatever came, the client goes on after the highest.
            job.last_seq = job.last_seq.max(event.seq);
            job.over |= event.event.is_terminal();
        }
        let json = serde_json::to_string(&event).unwrap_or_default();
        let of = (event.job_id, self.name.clone());
        self.history.borrow_mut().heard.entry(of).or_default().push((event.seq, event.event, json));
    }

    /// A watch that has ended is asked for again, unless its job has ended too.
    fn on_notice(&mut self, notice: &NoticeV1) {
        let Some(job) = self.jobs.get_mut(&notice.job_id).filter(|job| !job.over && !notice.goes_on) else { return };
        if notice.code == ErrorCode::AlreadyEnded.as_str() {
            // The history tells whether it had heard of the end.
            job.over = true;
        } else {
            job.again_at = Some(Instant::now() + AGAIN);
        }
    }

    /// `None`: the connection is given up, and what was asked for is asked again on another.
    fn on_error(&mut self, error: &ErrorV1) -> Option<()> {
        if let Some((job_id, _)) = self.cancels.remove(&error.request) {
            if let Some(job) = self.jobs.get_mut(&job_id) {
                job.cancel_at = Some(Instant::now() + AGAIN);
            }
            return Some(());
        }
        let of =
            self.jobs.values_mut().find(|job| job.submit.request == error.request && (job.outside || !job.accepted))?;
        if of.outside {
            // Its receipt may not be there yet.
            of.submit.request = 0;
            of.due = Instant::now() + AGAIN;
            return Some(());
        }
        if error.retryable {
            of.due = Instant::now() + AGAIN;
        } else {
            of.over = true;
            let job_id = of.submit.job_id;
            if let Some(submitted) = self.history.borrow_mut().jobs.get_mut(&job_id) {
                submitted.refused = true;
            }
        }
        Some(())
    }
}
