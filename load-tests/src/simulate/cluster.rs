//! The nodes of one simulated cluster: which life each is in, and what may be asked of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_log::port::TopicPartition;
use relay_node::events::route;
use relay_protocol::{JobId, topics};
use relay_runtime::random::{Random, SeededRandom};
use tokio::time::Instant;

use super::clock::VirtualClock;
use super::counts::Counts;
use super::gate::{Gate, Life};
use super::log::Engine;
use super::node::{Node, Surroundings};

/// Partitions of the event topics.
pub(super) const EVENT_PARTITIONS: u32 = 2;
/// Partitions of the lane.
pub(super) const LANE_PARTITIONS: u32 = 4;

/// One node, through all its lives.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) clock: VirtualClock,
    pub(super) node: Option<Rc<Node>>,
}

/// The cluster.
pub(super) struct Cluster {
    pub(super) around: Surroundings,
    pub(super) places: RefCell<Vec<Place>>,
    /// Jobs that a producer wrote and knows to be durable, in order.
    pub(super) outside: RefCell<Vec<JobId>>,
    /// Whether more of them come.
    pub(super) producing: Cell<bool>,
    counts: Arc<Counts>,
    began: Instant,
    lives: AtomicU64,
    random: SeededRandom,
    waiting: RefCell<BTreeMap<String, Vec<JobId>>>,
}

impl Cluster {
    /// A cluster of `nodes` nodes that have not begun.
    pub(super) fn new(around: Surroundings, counts: Arc<Counts>, began: Instant, nodes: usize, seed: u64) -> Rc<Self> {
        let place = |n| Place { name: format!("node-{n}"), clock: VirtualClock::new(began), node: None };
        Rc::new(Self {
            around,
            places: RefCell::new((0..nodes).map(place).collect()),
            outside: RefCell::default(),
            producing: Cell::new(true),
            counts,
            began,
            lives: AtomicU64::new(1),
            random: SeededRandom::new(seed),
            waiting: RefCell::default(),
        })
    }

    /// A clock that is right.
    pub(super) fn clock(&self) -> VirtualClock {
        VirtualClock::new(self.began)
    }

    /// What is counted.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The log.
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.around.engine
    }

    /// A gate for a new life.
    pub(super) fn new_gate(&self) -> Arc<Gate> {
        Gate::new(self.lives.fetch_add(1, Ordering::Relaxed), self.counts.clone())
    }

    /// Begins a life of the node at `index`, whose calls go through `gate`.
    pub(super) async fn start(&self, index: usize, gate: Arc<Gate>) {
        let Some((name, clock)) =
            self.places.borrow().get(index).map(|place| (place.name.clone(), place.clock.clone()))
        else {
            return;
        };
        let node = Node::start(&name, &self.around, clock, gate, self.random.next_u64()).await;
        if let Some(place) = self.places.borrow_mut().get_mut(index) {
            place.node = node.ok();
        }
    }

    /// The node at `index`, if it lives.
    pub(super) fn node(&self, index: usize) -> Option<Rc<Node>> {
        let node = self.places.borrow().get(index)?.node.clone()?;
        (node.gate.life() != Life::Dead).then_some(node)
    }

    /// Any node that lives, frozen ones too: a client cannot tell.
    pub(super) fn any_node(&self, random: &SeededRandom) -> Option<Rc<Node>> {
        let count = self.places.borrow().len() as u64;
        self.node(random.below(count) as usize)
    }

    /// Somebody waits for these jobs.
    pub(super) fn waits(&self, name: &str, jobs: Vec<JobId>) {
        self.waiting.borrow_mut().insert(name.to_owned(), jobs);
    }

    /// Who waits for which jobs.
    pub(super) fn waiting(&self) -> Vec<String> {
        let waiting = self.waiting.borrow();
        let of_one = |(name, jobs): (&String, &Vec<JobId>)| {
            jobs.iter().map(|job| format!("{name} for {job}")).collect::<Vec<_>>()
        };
        waiting.iter().flat_map(of_one).collect()
    }

    /// Whether the log has the job's end.
    pub(super) fn has_end(&self, job_id: JobId) -> bool {
        let at = TopicPartition::new(topics::EVENTS, job_id.reply_partition(EVENT_PARTITIONS));
        let records = self.engine().records(&at);
        let of_job = records.iter().filter(|record| route::job_of(record) == Some(job_id));
        of_job.filter_map(|record| route::routed(record, job_id)).any(|event| event.kind.is_terminal())
    }
}
