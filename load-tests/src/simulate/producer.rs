//! A producer from outside: it writes the lane itself, twice at times, to the wrong partition at times, and things that are no
//! jobs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use relay_log::port::{Log, NewRecord, TopicPartition};
use relay_protocol::job::InlineMedia;
use relay_protocol::record::encode_job;
use relay_protocol::{Input, Job, JobId, Priority, Task, partition, topics};
use relay_runtime::clock::Clock as _;
use relay_runtime::random::{Random, SeededRandom};
use serde_json::Map;

use super::client::{ATTEMPTS_MAX, Load, TRACE};
use super::cluster::{Cluster, LANE_PARTITIONS};
use super::counts::Fault;
use super::history::{History, Submitted};

/// Whose jobs they are.
const TENANT: &str = "default";

/// A producer.
pub(super) struct Producer {
    cluster: Rc<Cluster>,
    history: Rc<RefCell<History>>,
    random: SeededRandom,
}

impl Producer {
    /// A producer.
    pub(super) fn new(cluster: Rc<Cluster>, history: Rc<RefCell<History>>, seed: u64) -> Self {
        Self { cluster, history, random: SeededRandom::new(seed) }
    }

    fn chance(&self, per_cent: u64) -> bool {
        self.random.below(100) < per_cent
    }

    /// Writes all its records.
    pub(super) async fn run(self, load: Load) {
        let log = self.cluster.engine().at(self.cluster.new_gate());
        for _ in 0..load.jobs {
            let wait = self.random.below(2 * load.within.as_millis() as u64 / load.jobs.max(1));
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if self.chance(5) {
                self.cluster.counts().fault(Fault::ForeignRecord);
                let at = self.random.below(u64::from(LANE_PARTITIONS)) as u32;
                self.write(&*log, at, None, Bytes::from_static(b"{\"no\":\"job\"}")).await;
                continue;
            }
            self.submit(&*log).await;
        }
        self.cluster.producing.set(false);
    }

    async fn submit(&self, log: &dyn Log) {
        let job = self.job();
        let encoded = if self.chance(50) { encode_job(&job).ok() } else { None };
        let Some(value) = encoded.or_else(|| serde_json::to_vec(&job).ok().map(Bytes::from)) else { return };
        let (at, id) = (self.partition(&job), job.id);
        let submitted = Submitted {
            key: job.idempotency_key.map(|key| (TENANT.to_owned(), key)),
            has_deadline: job.deadline.is_some(),
            attempts_max: job.attempts_max.unwrap_or(ATTEMPTS_MAX),
            ..Submitted::default()
        };
        if let Some(id) = id {
            self.history.borrow_mut().jobs.insert(id, submitted.clone());
        }
        if let Some((offset, timestamp)) = self.write(log, at, id, value.clone()).await {
            let id = id.unwrap_or_else(|| JobId::of_record(&topics::jobs("default"), at, offset, timestamp));
            self.history.borrow_mut().jobs.insert(id, Submitted { accepted: true, ..submitted });
            self.cluster.outside.borrow_mut().push(id);
        }
        if id.is_some() && self.chance(20) {
            self.cluster.counts().fault(Fault::DoubledRecord);
            tokio::time::sleep(Duration::from_millis(self.random.below(3_000))).await;
            self.write(log, at, id, value).await;
        }
    }

    fn job(&self) -> Job {
        let now_ms = self.cluster.clock().now_ms();
        let key = self.chance(40).then(|| format!("key-{}", self.random.below(5)));
        // A key stands for one body; a model that no backend has is nobody's to run.
        let model = if key.is_none() && self.chance(15) { "nobody-has-it" } else { "m1" };
        let reused = key.is_some() && self.chance(10);
        if reused {
            self.cluster.counts().fault(Fault::ReusedKey);
        }
        let data = Bytes::from_static(if reused { b"noise" } else { b"sound" });
        Job {
            id: self.chance(60).then(|| JobId::new(now_ms, self.random.below(2) as u32, self.random.next_u64())),
            tenant: TENANT.to_owned(),
            subject: "producer".to_owned(),
            task: Task::Transcribe,
            model: Some(model.to_owned()),
            params: Map::new(),
            input: Input::Inline(InlineMedia { data, name: None, media_type: None }),
            priority: Priority::Normal,
            idempotency_key: key,
            deadline: self.chance(20).then(|| now_ms + 500 + self.random.below(8_000)),
            not_before: None,
            attempts_max: self.chance(30).then(|| 1 + self.random.below(4) as u32),
            attempt: 0,
            traceparent: Some(TRACE.to_owned()),
            hops: Vec::new(),
            redrive_of: None,
        }
    }

    /// Where the job is written: its key's partition, or any.
    fn partition(&self, job: &Job) -> u32 {
        let any = self.random.below(u64::from(LANE_PARTITIONS)) as u32;
        if job.id.is_none() && job.idempotency_key.is_none() {
            return any;
        }
        if self.chance(25) {
            self.cluster.counts().fault(Fault::MisplacedRecord);
            return any;
        }
        let id = job.id.unwrap_or_else(|| JobId::new(0, 0, 0));
        let key = partition::job_key(TENANT, job.idempotency_key.as_deref(), id);
        partition::of_key(key.as_bytes(), LANE_PARTITIONS)
    }

    /// Writes a record until it is acknowledged; one without an id is given up, as it would be another job.
    async fn write(&self, log: &dyn Log, at: u32, id: Option<JobId>, value: Bytes) -> Option<(u64, u64)> {
        loop {
            let timestamp_ms = self.cluster.clock().now_ms();
            let record = NewRecord {
                to: TopicPartition::new(topics::jobs("default"), at),
                key: None,
                value: Some(value.clone()),
                headers: Vec::new(),
                timestamp_ms,
            };
            match log.append(vec![record]).await {
                Ok(offsets) => return offsets.first().map(|offset| (*offset, timestamp_ms)),
                Err(_) if id.is_none() => return None,
                Err(_) => self.cluster.counts().fault(Fault::Repeated),
            }
        }
    }
}
