//! A node that the living leader does not hear: it ends what runs on its slots before they go to another node, so that the backend, by
//! its own count, never has more requests than slots. And a node that stood still: it throws away first of all what it had.

use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::Broker;
use load_tests::chaos::topic;
use relay_protocol::{Event, EventKind};
use serde_json::{Value, json};

use crate::processes::{PATIENCE, Process, binary, coordinator_command, free_address, node_command};
use crate::proxy::Proxy;

/// Slots of the one backend.
const SLOTS: u64 = 2;
/// Milliseconds for each word of an input.
const WORD_MS: usize = 10;
/// Longer than a lease.
const FROZEN: Duration = Duration::from_secs(7);

/// A coordinator that leads, with the times of its defaults, a LocalAI simulator, and two nodes, of which the first reaches the leader by a
/// way that can be cut.
struct World {
    nodes: Vec<Process>,
    coordinator: Process,
    simulator: Process,
    way: Proxy,
    http: reqwest::blocking::Client,
    bootstrap: String,
    _broker: Broker,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> anyhow::Result<Self> {
        relay_runtime::tls::install_provider();
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(&folder.path().join("kafka"))?;
        let bootstrap = broker.bootstrap.clone();
        let mut command = Command::new(binary("localai-simulator")?);
        let simulator = Process::start(command.args(["--workers", "8"]))?;
        let mut command = coordinator_command(&bootstrap, &free_address()?)?;
        command
            .env_remove("RELAY__LEASES__RESTART_WAIT_MS")
            .env("RELAY__BACKENDS__STATIC", format!("{};slots={SLOTS}", simulator.url));
        let coordinator = Process::start(&mut command)?;
        let way = Proxy::start(&coordinator.url)?;
        let store = folder.path().join("objects");
        let node = |number: usize, coordinator: &str| {
            let mut command = node_command(&format!("node-{number}"), &bootstrap, &store)?;
            Process::start(command.env("RELAY__COORDINATOR__URL", coordinator))
        };
        let nodes = vec![node(1, &way.url)?, node(2, &coordinator.url)?];
        let http = reqwest::blocking::Client::builder().timeout(PATIENCE * 2).build()?;
        let world = Self { nodes, coordinator, simulator, way, http, bootstrap, _broker: broker, _folder: folder };
        // The model is loaded.
        ensure!(world.call(0, 1).join().map_err(|_| anyhow::anyhow!("a call died"))?? == 200);
        Ok(world)
    }

    /// A call of the OpenAI-compatible API of a node, whose answer takes so many words' time; its status.
    fn call(&self, node: usize, words: usize) -> JoinHandle<anyhow::Result<u16>> {
        let (http, url) = (self.http.clone(), format!("{}/v1/embeddings", self.nodes[node].url));
        let body = json!({ "model": "embed-1", "input": "word ".repeat(words) });
        std::thread::spawn(move || Ok(http.post(url).json(&body).send()?.status().as_u16()))
    }

    /// A streamed chat whose answer takes so many words' time, once the answer has begun.
    fn stream(&self, node: usize, words: usize) -> anyhow::Result<reqwest::blocking::Response> {
        let message = json!({ "role": "user", "content": "word ".repeat(words) });
        let body = json!({ "model": "lab-chat", "stream": true, "messages": [message] });
        let url = format!("{}/v1/chat/completions", self.nodes[node].url);
        Ok(self.http.post(url).json(&body).send()?.error_for_status()?)
    }

    fn get(&self, url: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(url).send()?.error_for_status()?.json()?)
    }

    /// What the simulator counts of its requests.
    fn count(&self, name: &str) -> anyhow::Result<u64> {
        let counters = self.get(&format!("{}/simulator/counters", self.simulator.url))?;
        counters["models"]["embed-1"][name].as_u64().with_context(|| format!("no {name}: {counters}"))
    }

    fn metric(&self, node: usize, name: &str) -> anyhow::Result<u64> {
        let text = self.http.get(format!("{}/metrics", self.nodes[node].url)).send()?.text()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    /// Requests of a node at the backend, by its last heartbeat.
    fn in_use(&self, node: &str) -> anyhow::Result<u64> {
        let nodes = self.get(&format!("{}/v1/nodes", self.coordinator.url))?;
        let nodes = nodes["nodes"].as_array().context("no nodes")?.clone();
        let node = nodes.iter().find(|known| known["node"] == node).context("no such node")?;
        Ok(node["grants"].as_array().into_iter().flatten().filter_map(|grant| grant["in_use"].as_u64()).sum())
    }

    fn submit(&self, words: usize) -> anyhow::Result<()> {
        let job = json!({
            "task": "embed", "model": "embed-1", "input": { "text": "word ".repeat(words) }, "attempts_max": 1,
        });
        let answer = self.http.post(format!("{}/v1/jobs", self.nodes[1].url)).json(&job).send()?;
        ensure!(answer.status().as_u16() == 202, "{}", answer.text()?);
        Ok(())
    }

    fn events(&self) -> anyhow::Result<Vec<Event>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(topic::read_all(&self.bootstrap))
    }
}

fn await_true(what: &str, mut is_true: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !is_true()? {
        ensure!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(began.elapsed())
}

#[test]
fn a_node_that_the_leader_does_not_hear_ends_its_calls_before_another_node_gets_their_slots() -> anyhow::Result<()> {
    let world = World::start()?;
    let long = 14_000 / WORD_MS;
    let cut_off = [world.call(0, long), world.call(0, long)];
    await_true("both slots are the first node's", || Ok(world.in_use("node-1")? == SLOTS))?;
    world.way.cut(true);
    let began = Instant::now();
    let others: Vec<_> = (0..4).map(|_| world.call(1, 100)).collect();
    for call in others {
        ensure!(call.join().map_err(|_| anyhow::anyhow!("a call died"))?? == 200);
    }
    println!("the other node had its calls answered {:?} after the cut", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(11), "before the first node's would have ended by themselves");
    assert_eq!(world.count("in_flight_max")?, SLOTS, "never more than there are slots");
    assert_eq!(world.metric(0, "relay_backend_requests_cut_off_total")?, SLOTS);

    world.way.cut(false);
    for call in cut_off {
        let status = call.join().map_err(|_| anyhow::anyhow!("a call died"))??;
        assert_eq!(status, 200, "it began again once the node had slots");
    }
    assert_eq!((world.count("in_flight_max")?, world.count("cancelled")?), (SLOTS, SLOTS));
    Ok(())
}

#[test]
fn a_stream_that_had_begun_when_it_is_cut_off_says_so_and_ends() -> anyhow::Result<()> {
    let world = World::start()?;
    let answer = world.stream(0, 20_000 / WORD_MS)?;
    world.way.cut(true);
    let text = answer.text()?;
    let messages: Vec<&str> = text.split("\n\n").filter(|message| !message.is_empty()).collect();
    let [first, .., error, done] = messages[..] else { anyhow::bail!("no stream: {text}") };
    ensure!(first.contains("\"delta\"") && error.contains("attempt_lost"), "{first}\n{error}");
    assert_eq!(done, "data: [DONE]");
    Ok(())
}

#[test]
fn jobs_of_a_node_that_the_leader_does_not_hear_are_done_again_and_not_charged_with_it() -> anyhow::Result<()> {
    let world = World::start()?;
    // Which node has a job's partition follows from its id: there are more of them until the first node has some.
    let mut submitted = 0;
    await_true("jobs run on both nodes", || {
        submitted += 1;
        if submitted <= 10 {
            world.submit(7_000 / WORD_MS)?;
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(world.in_use("node-1")? > 0 && world.in_use("node-2")? > 0)
    })?;
    world.way.cut(true);
    await_true("its attempt is cut off", || Ok(world.metric(0, "relay_backend_requests_cut_off_total")? == 1))?;
    // The other node has its slot meanwhile, if it has jobs for it.
    std::thread::sleep(Duration::from_secs(2));
    world.way.cut(false);
    let submitted = submitted.min(10);
    await_true("each job ended", || {
        let ends = world.events()?.iter().filter(|event| event.event.is_terminal()).count();
        Ok(ends == submitted)
    })?;
    let events = world.events()?;
    let of_kind = |kind: EventKind| events.iter().filter(move |event| event.event == kind);
    assert_eq!(
        of_kind(EventKind::Completed).count(),
        submitted,
        "one attempt was allowed, and the lost one not charged"
    );
    let lost: Vec<_> = of_kind(EventKind::Retrying).collect();
    ensure!(lost.len() == 1 && lost[0].error.as_ref().is_some_and(|error| error.code.as_str() == "attempt_lost"));
    ensure!(of_kind(EventKind::Completed).any(|end| end.job_id == lost[0].job_id && end.attempt == 2));
    assert_eq!((world.count("in_flight_max")?, world.count("cancelled")?), (SLOTS, 1));
    Ok(())
}

#[test]
fn a_node_that_stood_still_throws_away_what_it_had_before_anything_else() -> anyhow::Result<()> {
    let world = World::start()?;
    let before = world.count("requests")?;
    // The answer to the first lies in its socket when it wakes, the second is under way still.
    let calls = [world.call(0, 3_000 / WORD_MS), world.call(0, 15_000 / WORD_MS)];
    await_true("both run", || Ok(world.count("in_flight")? == SLOTS))?;
    world.nodes[0].freeze()?;
    std::thread::sleep(FROZEN);
    // Nobody can end what a process has that stands still: the backend works on.
    assert_eq!((world.count("in_flight")?, world.count("cancelled")?), (1, 0));
    world.nodes[0].thaw()?;
    let took = await_true("the backend hears of it", || Ok(world.count("cancelled")? == 1))?;
    println!("the request ended {took:?} after the node woke");
    ensure!(took < Duration::from_secs(1), "{took:?}");
    for call in calls {
        ensure!(call.join().map_err(|_| anyhow::anyhow!("a call died"))?? == 200);
    }
    assert_eq!(world.metric(0, "relay_backend_requests_cut_off_total")?, SLOTS, "also the one whose answer was there");
    assert_eq!(world.count("requests")? - before, 2 * SLOTS, "both were made again");
    Ok(())
}
