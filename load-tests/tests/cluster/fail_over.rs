//! The leading coordinator killed, killed together with a node, or frozen: another one leads soon, nothing that runs is
//! disturbed, no backend ever gets more requests than it has slots.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use load_tests::broker::Broker;
use load_tests::chaos::topic;
use relay_protocol::{Event, EventKind, JobId};
use serde_json::{Value, json};

use crate::processes::{PATIENCE, Process, binary, coordinator_command, free_address, node_command};

/// Twice the promise of three seconds, which is for a machine that has time for it: other tests run beside this one.
const REPLACED_WITHIN: Duration = Duration::from_secs(6);
/// Slots of the one backend.
const SLOTS: u64 = 2;
/// Words of a job: with 10 ms for each it takes 1.5 s.
const WORDS: usize = 150;
/// Longer than the leader's silence may last.
const FROZEN: Duration = Duration::from_secs(6);

/// Two coordinators, of which the first leads, two nodes that know both, and a LocalAI simulator.
struct World {
    nodes: Vec<Process>,
    coordinators: [Process; 2],
    simulator: Process,
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
        let http = reqwest::blocking::Client::builder().timeout(Duration::from_secs(15)).build()?;
        let first = coordinator(&bootstrap, &simulator)?;
        await_role(&http, &first.url, "leader")?;
        let second = coordinator(&bootstrap, &simulator)?;
        await_role(&http, &second.url, "standby")?;
        let both = format!("{},{}", first.url, second.url);
        let store = folder.path().join("objects");
        let node = |number: usize| {
            Process::start(
                node_command(&format!("node-{number}"), &bootstrap, &store)?.env("RELAY__COORDINATOR__URL", &both),
            )
        };
        let nodes = vec![node(1)?, node(2)?];
        let coordinators = [first, second];
        let world = Self { nodes, coordinators, simulator, http, bootstrap, _broker: broker, _folder: folder };
        world.await_nodes(&world.coordinators[0].url, &["node-1", "node-2"])?;
        Ok(world)
    }

    fn get(&self, url: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(url).send()?.error_for_status()?.json()?)
    }

    /// Waits until the coordinator at `url` leads and knows these nodes as ready.
    fn await_nodes(&self, url: &str, names: &[&str]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.get(&format!("{url}/v1/nodes"));
            let ready = |name: &&str| {
                let nodes = answer.as_ref().ok().and_then(|answer| answer["nodes"].as_array());
                nodes.is_some_and(|nodes| nodes.iter().any(|node| node["node"] == **name && node["state"] == "ready"))
            };
            if names.iter().all(ready) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the nodes do not come: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until each node says that it holds one slot.
    fn await_slot_each(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let nodes = self.get(&format!("{}/v1/nodes", self.coordinators[0].url))?;
            let has_one = |node: &Value| node["grants"][0]["slots"] == 1;
            if nodes["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(has_one)) {
                // What was granted has reached the nodes with the next heartbeat of each.
                std::thread::sleep(Duration::from_secs(1));
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "not one slot for each node: {nodes}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn incarnation(&self, url: &str) -> anyhow::Result<u64> {
        let cluster = self.get(&format!("{url}/v1/cluster"))?;
        cluster["coordinator_incarnation"].as_u64().context("no incarnation")
    }

    fn submit(&self, node: usize, count: usize) -> anyhow::Result<Vec<JobId>> {
        let text = "word ".repeat(WORDS);
        let job = json!({ "task": "embed", "model": "embed-1", "input": { "text": text } });
        let submit = |_| {
            let answer = self.http.post(format!("{}/v1/jobs", self.nodes[node].url)).json(&job).send()?;
            ensure!(answer.status().as_u16() == 202, "{}", answer.text()?);
            Ok(answer.json::<Value>()?["job_id"].as_str().context("no job id")?.parse()?)
        };
        (0..count).map(submit).collect()
    }

    /// A client that follows a job in one session to its end.
    fn watch(&self, node: usize, job: JobId) -> anyhow::Result<Child> {
        let mut command = Command::new(binary("client-cli")?);
        command.args(["--server", &self.nodes[node].url, "watch", "--json", &job.to_string()]);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Requests at the backend: now, and the most there ever were at a time.
    fn in_flight(&self) -> anyhow::Result<(u64, u64)> {
        let counters = self.get(&format!("{}/simulator/counters", self.simulator.url))?;
        let model = &counters["models"]["embed-1"];
        let count = |name: &str| model[name].as_u64().with_context(|| format!("no {name}: {counters}"));
        Ok((count("in_flight")?, count("in_flight_max")?))
    }

    fn await_in_flight(&self, wanted: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.in_flight()?.0 != wanted {
            ensure!(began.elapsed() < PATIENCE, "{:?} in flight instead of {wanted}", self.in_flight()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// No node stopped to use its slots, and none cut off what runs.
    fn no_lease_ended(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let metrics = self.http.get(format!("{}/metrics", node.url)).send()?.text()?;
            ensure!(!metrics.contains("relay_coordinator_leases_ended_total"), "a lease ended at {}", node.url);
        }
        Ok(())
    }

    /// Waits until each of `jobs` has completed; all events.
    fn await_ends(&self, jobs: &[JobId]) -> anyhow::Result<Vec<Event>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let began = Instant::now();
        loop {
            let events = runtime.block_on(topic::read_all(&self.bootstrap)).unwrap_or_default();
            let ends = |job: JobId| events.iter().filter(move |event| event.job_id == job && event.event.is_terminal());
            if jobs.iter().all(|job| ends(*job).count() > 0) {
                let completed = |job: JobId| ends(job).all(|event| event.event == EventKind::Completed);
                ensure!(jobs.iter().all(|job| ends(*job).count() == 1 && completed(*job)), "not each completed once");
                return Ok(events);
            }
            ensure!(began.elapsed() < PATIENCE, "some of {} jobs did not end", jobs.len());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn coordinator(bootstrap: &str, simulator: &Process) -> anyhow::Result<Process> {
    let mut command = coordinator_command(bootstrap, &free_address()?)?;
    command
        // As by default: an earlier leader has lent slots.
        .env_remove("RELAY__LEASES__RESTART_WAIT_MS")
        .env("RELAY__BACKENDS__STATIC", format!("{};slots={SLOTS}", simulator.url));
    Process::start(&mut command)
}

/// Waits until `/readyz` says this role; how long it took.
fn await_role(http: &reqwest::blocking::Client, url: &str, role: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let said = http.get(format!("{url}/readyz")).send().and_then(|answer| answer.json::<Value>());
        if said.as_ref().is_ok_and(|said| said["role"] == role) {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "{url} is not {role}: {said:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_leader_is_replaced_within_three_seconds_and_nothing_is_disturbed() -> anyhow::Result<()> {
    let mut world = World::start()?;
    let before = world.incarnation(&world.coordinators[0].url)?;
    let jobs = [world.submit(0, 8)?, world.submit(1, 8)?].concat();
    world.await_in_flight(SLOTS)?;
    // The session of a client whose job ends long after.
    let watched = world.watch(0, jobs[7])?;

    world.coordinators[0].kill_9()?;
    let took = await_role(&world.http, &world.coordinators[1].url, "leader")?;
    println!("replaced {took:?} after the kill");
    ensure!(took < REPLACED_WITHIN, "{took:?}");
    world.await_nodes(&world.coordinators[1].url, &["node-1", "node-2"])?;
    ensure!(world.incarnation(&world.coordinators[1].url)? > before, "a higher incarnation");

    let events = world.await_ends(&jobs)?;
    let started = |job: &JobId| events.iter().filter(|e| e.job_id == *job && e.event == EventKind::Started).count();
    ensure!(jobs.iter().all(|job| started(job) == 1), "a running job was disturbed");
    let watched = watched.wait_with_output()?;
    let (said, words) = (String::from_utf8_lossy(&watched.stdout), String::from_utf8_lossy(&watched.stderr));
    ensure!(watched.status.success() && said.contains("completed"), "{said}{words}");
    ensure!(!words.to_lowercase().contains("connect"), "its session was lost: {words}");
    let (_, most) = world.in_flight()?;
    assert_eq!(most, SLOTS, "all slots were used, and never more");
    world.no_lease_ended()
}

#[test]
fn a_leader_killed_together_with_a_node_is_replaced_and_the_dead_ones_slots_go_to_the_other_node() -> anyhow::Result<()>
{
    let mut world = World::start()?;
    let jobs = [world.submit(0, 6)?, world.submit(1, 6)?].concat();
    world.await_in_flight(SLOTS)?;
    world.nodes[0].kill_9()?;
    world.coordinators[0].kill_9()?;
    let took = await_role(&world.http, &world.coordinators[1].url, "leader")?;
    println!("replaced {took:?} after the kill");
    ensure!(took < REPLACED_WITHIN, "{took:?}");
    world.await_ends(&jobs)?;
    let more = world.submit(1, 4)?;
    world.await_in_flight(SLOTS)?;
    world.await_ends(&more)?;
    let (_, most) = world.in_flight()?;
    assert_eq!(most, SLOTS, "the dead node's slots were not lent twice");
    Ok(())
}

/// A heartbeat of a node that wants everything.
fn greedy(number: u64) -> Value {
    json!({
        "node": format!("greedy-{number}"), "incarnation": 1, "version": "0.0.0", "ready": true, "draining": false,
        "load": { "sessions": 0, "jobs_running": 0, "jobs_waiting": 9, "bytes_per_s": 0, "cpu": 0.0 },
        "demand": [{ "model": "embed-1", "jobs": 9 }],
    })
}

#[test]
fn a_leader_that_was_frozen_grants_nothing_after_it() -> anyhow::Result<()> {
    let world = World::start()?;
    let [frozen, other] = &world.coordinators;
    let jobs = world.submit(0, 8)?;
    world.await_in_flight(SLOTS)?;
    frozen.freeze()?;
    let took = await_role(&world.http, &other.url, "leader")?;
    println!("replaced {took:?} after it was frozen");
    ensure!(took < REPLACED_WITHIN, "{took:?}");
    // Requests that lie in its sockets when it wakes, and those that come right then.
    let ask = |number: u64| {
        let (http, url) = (world.http.clone(), format!("{}/v1/heartbeat", frozen.url));
        std::thread::spawn(move || http.post(url).json(&greedy(number)).send().map(|answer| answer.status().as_u16()))
    };
    let asked: Vec<_> = (0..8).map(ask).collect();
    std::thread::sleep(FROZEN - took.min(FROZEN));
    frozen.thaw()?;
    let late: Vec<_> = (8..40)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(20));
            ask(number)
        })
        .collect();
    let mut refused = 0;
    for answer in asked.into_iter().chain(late) {
        // A connection that said nothing for long is closed instead.
        if let Ok(status) = answer.join().map_err(|_| anyhow::anyhow!("a thread died"))? {
            assert_eq!(status, 503, "it does not lead any more");
            refused += 1;
        }
    }
    ensure!(refused >= 32, "{refused} answers");
    let role = await_role(&world.http, &frozen.url, "standby")?;
    ensure!(role < Duration::from_secs(1), "{role:?}");
    ensure!(world.incarnation(&other.url).is_ok(), "the new leader stays");
    world.await_ends(&jobs)?;
    let (_, most) = world.in_flight()?;
    assert_eq!(most, SLOTS, "never more than there are slots");
    world.no_lease_ended()
}

#[test]
fn while_nobody_leads_nodes_use_their_slots_beyond_the_time_of_their_lease() -> anyhow::Result<()> {
    let mut world = World::start()?;
    world.await_slot_each()?;
    for coordinator in &mut world.coordinators {
        coordinator.kill_9()?;
    }
    // Twice as long as a lease: nobody can have lent the slots to others.
    let until = Instant::now() + Duration::from_secs(10);
    let mut jobs = Vec::new();
    while Instant::now() < until {
        jobs.extend(world.submit(0, 1)?);
        std::thread::sleep(Duration::from_secs(1));
    }
    jobs.extend(world.submit(1, 2)?);
    world.await_ends(&jobs)?;
    world.no_lease_ended()
}
