//! `bench balance`: the same requests through the relay and through other balancers, before backends of unequal speed, beside what
//! theory says.

mod backend;
mod balancers;
mod growth;
mod others;
mod overhead;
mod policy;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::backend::{Backend, MODEL, Mood, WORK};
use self::balancers::{Balancer, Kind};
use self::trace::{Request, Rule, SLOTS, SPEEDS, theory, trace};
use super::report::{Report, Row};

/// Requests that are not counted: what learns learns meanwhile, and what buffers fills.
const WARM_UP: usize = 300;
/// A client gives up after that.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a second of sound, of the header's format: requests stay small.
const BYTE_RATE: u32 = 100;
/// Seconds of sound for a millisecond of work.
const SOUND_S_PER_MS: f64 = 0.1;

/// What to measure.
#[derive(Debug, Args)]
pub struct BalanceArguments {
    /// Loads, in percent of what the backends can do.
    #[arg(long, value_delimiter = ',', default_values_t = [50, 70, 85, 95])]
    loads: Vec<u32>,
    /// Requests for each load and seed.
    #[arg(long, default_value_t = 4_000)]
    requests: usize,
    /// Seeds of the traces.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5])]
    seeds: Vec<u64>,
    /// Mean work of a request at speed 1, in milliseconds.
    #[arg(long, default_value_t = 100.0)]
    mean_ms: f64,
    /// Who balances in real time; without a value nobody: theory alone.
    #[arg(long, value_delimiter = ',', value_enum, num_args = 0.., default_values_t = [Kind::Relay, Kind::Haproxy, Kind::Nginx])]
    balancers: Vec<Kind>,
    /// What goes wrong with the fastest backend, a third into each run at 50 %: killed, stalled, failing.
    #[arg(long, value_delimiter = ',', value_enum)]
    faults: Vec<Fault>,
    /// Whose cost is measured of requests that are no work.
    #[arg(long, value_delimiter = ',', value_enum)]
    overhead: Vec<Kind>,
    /// Whether the coordinator's decisions are measured as the cluster grows.
    #[arg(long)]
    growth: bool,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What goes wrong with a backend in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// It is gone.
    Killed,
    /// It takes requests and answers none; its probes are well.
    Stalled,
    /// It fails every request at once; its probes are well.
    Failing,
}

/// What came of one run.
#[derive(Default)]
struct Outcome {
    took_ms: Vec<f64>,
    failed: usize,
}

/// Measures and prints.
///
/// # Errors
/// A balancer that is not installed or does not start.
pub async fn run(arguments: BalanceArguments) -> anyhow::Result<()> {
    let settings = json!({ "requests": arguments.requests, "seeds": arguments.seeds, "mean_ms": arguments.mean_ms,
        "speeds": SPEEDS, "slots": SLOTS, "sigma": 0.8, "size_off": 0.4 });
    let mut report = Report::new("bench balance", settings);
    for load in &arguments.loads {
        let traces: Vec<_> = arguments.seeds.iter().map(|seed| requests_of(&arguments, *seed, *load)).collect();
        let traces = traces.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for (what, rule) in [("theory: earliest end", Rule::EarliestEnd), ("theory: fastest idle", Rule::FastestIdle)] {
            let outcomes =
                traces.iter().map(|trace| Outcome { took_ms: theory(trace, rule).split_off(WARM_UP), failed: 0 });
            report.rows.push(row(&format!("{load} % {what}"), outcomes.collect(), None));
        }
        let outcomes =
            traces.iter().map(|trace| Outcome { took_ms: policy::choose(trace).split_off(WARM_UP), failed: 0 });
        report.rows.push(row(&format!("{load} % the relay's choice, in virtual time"), outcomes.collect(), None));
        for kind in &arguments.balancers {
            report.rows.push(measure(*kind, &format!("{load} % {kind:?}"), &traces, None).await?);
        }
    }
    for fault in &arguments.faults {
        let traces = vec![requests_of(&arguments, arguments.seeds[0], 50)?];
        for kind in &arguments.balancers {
            report.rows.push(measure(*kind, &format!("{fault:?} at 50 % {kind:?}"), &traces, Some(*fault)).await?);
        }
    }
    for kind in &arguments.overhead {
        report.rows.push(overhead::measure(*kind).await?);
    }
    if arguments.growth {
        report.rows.extend(growth::measure()?);
    }
    report.publish(arguments.json.as_deref())
}

fn requests_of(arguments: &BalanceArguments, seed: u64, load: u32) -> anyhow::Result<Vec<Request>> {
    trace(seed, arguments.requests + WARM_UP, arguments.mean_ms, f64::from(load) / 100.0)
}

async fn measure(kind: Kind, what: &str, traces: &[Vec<Request>], fault: Option<Fault>) -> anyhow::Result<Row> {
    // Side by side, each before backends of its own: all together keep the machine busy for a part of its time.
    let runs = futures_util::future::try_join_all(traces.iter().map(|trace| one_run(kind, trace, fault))).await?;
    let count: usize = traces.iter().map(Vec::len).sum();
    let cpu: Duration = runs.iter().map(|(_, cpu)| *cpu).sum();
    eprintln!("{what}: done");
    let outcomes = runs.into_iter().map(|(outcome, _)| outcome).collect();
    Ok(row(what, outcomes, Some(cpu.as_secs_f64() * 1e6 / count as f64)))
}

/// What came of one trace, and the processor time that the balancer took.
async fn one_run(kind: Kind, trace: &[Request], fault: Option<Fault>) -> anyhow::Result<(Outcome, Duration)> {
    let folder = tempfile::tempdir()?;
    let backends = SPEEDS.iter().map(|speed| Backend::start(*speed)).collect::<anyhow::Result<Vec<_>>>()?;
    let urls: Vec<_> = backends.iter().map(|backend| backend.url.clone()).collect();
    let path = folder.path().to_owned();
    let balancer = tokio::task::spawn_blocking(move || Balancer::start(kind, &path, &urls, SLOTS)).await??;
    wait_until_it_serves(kind, balancer.url()).await?;
    let before = balancer.cpu()?;
    let outcome = drive(kind, balancer.url(), trace, fault.map(|fault| (fault, &backends[0]))).await?;
    let cpu = balancer.cpu()? - before;
    for backend in &backends {
        backend.kill().await;
    }
    Ok((outcome, cpu))
}

async fn wait_until_it_serves(kind: Kind, url: &str) -> anyhow::Result<()> {
    let (client, began) = (reqwest::Client::new(), Instant::now());
    let tiny = Request { at_ms: 0.0, size_ms: 1.0, work_ms: 1.0 };
    while !send(kind, &client, url, &tiny).await {
        ensure!(began.elapsed() < CLIENT_PATIENCE, "{url} serves no request");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Sends each request when it is due, whatever became of those before.
async fn drive(kind: Kind, url: &str, trace: &[Request], fault: Option<(Fault, &Backend)>) -> anyhow::Result<Outcome> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1_024).build()?;
    let url: Arc<str> = url.into();
    let (began, mut under_way) = (Instant::now(), JoinSet::new());
    for (number, request) in trace.iter().copied().enumerate() {
        let due = began + Duration::from_secs_f64(request.at_ms / 1e3);
        sleep_until(due).await;
        if let Some((fault, backend)) = fault.filter(|_| number == trace.len() / 3) {
            match fault {
                Fault::Killed => backend.kill().await,
                Fault::Stalled => backend.set(Mood::Stalled),
                Fault::Failing => backend.set(Mood::Failing),
            }
        }
        let (client, url) = (client.clone(), url.clone());
        under_way.spawn(async move {
            let is_done = send(kind, &client, &url, &request).await;
            (number, is_done, due.elapsed())
        });
    }
    let mut outcome = Outcome::default();
    while let Some(ended) = under_way.join_next().await {
        let (number, is_done, took) = ended?;
        outcome.failed += usize::from(!is_done);
        if number >= WARM_UP {
            outcome.took_ms.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(outcome)
}

/// Whether the request was answered well.
async fn send(kind: Kind, client: &reqwest::Client, url: &str, request: &Request) -> bool {
    let form = reqwest::multipart::Form::new()
        .text("model", MODEL)
        .part("file", reqwest::multipart::Part::bytes(sound(request)).file_name("sound.wav"));
    let call = client.post(format!("{url}/v1/audio/transcriptions")).multipart(form);
    let answer = if kind.is_durable() { call.header("x-relay-durable", "true") } else { call }.send();
    let answer = timeout(CLIENT_PATIENCE, async { answer.await?.error_for_status()?.bytes().await }).await;
    matches!(answer, Ok(Ok(_)))
}

/// A WAV file whose length is the request's size; what work it is stands behind the sound.
fn sound(request: &Request) -> Vec<u8> {
    let bytes = (request.size_ms * SOUND_S_PER_MS * f64::from(BYTE_RATE)) as u32 & !1;
    let work = format!("{WORK}{:<12}", (request.work_ms * 1e3) as u64);
    let mut sound = Vec::with_capacity(64 + work.len() + bytes as usize);
    sound.extend_from_slice(b"RIFF");
    sound.extend_from_slice(&(36 + 8 + work.len() as u32 + bytes).to_le_bytes());
    sound.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    sound.extend_from_slice(&BYTE_RATE.to_le_bytes());
    sound.extend_from_slice(&BYTE_RATE.to_le_bytes());
    sound.extend_from_slice(b"\x01\0\x08\0data");
    sound.extend_from_slice(&bytes.to_le_bytes());
    sound.resize(44 + bytes as usize, 0x80);
    sound.extend_from_slice(b"note");
    sound.extend_from_slice(&(work.len() as u32).to_le_bytes());
    sound.extend_from_slice(work.as_bytes());
    sound
}

/// Percentiles and mean over all seeds; half the width of the mean's 95 % confidence interval by seed.
fn row(what: &str, outcomes: Vec<Outcome>, cpu_us: Option<f64>) -> Row {
    let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len().max(1) as f64;
    let means: Vec<f64> = outcomes.iter().map(|outcome| mean(&outcome.took_ms)).collect();
    let of_all = mean(&means);
    let variance = means.iter().map(|one| (one - of_all).powi(2)).sum::<f64>() / (means.len().max(2) - 1) as f64;
    let failed: usize = outcomes.iter().map(|outcome| outcome.failed).sum();
    let mut times: Vec<f64> = outcomes.into_iter().flat_map(|outcome| outcome.took_ms).collect();
    times.sort_by(f64::total_cmp);
    let percentile = |percent: usize| times.get((times.len() * percent / 100).min(times.len().max(1) - 1)).copied();
    let figure = |name: &str, figure: Option<f64>| (name.to_owned(), figure.unwrap_or(f64::NAN));
    let figures = vec![
        figure("p50 ms", percentile(50)),
        figure("p90 ms", percentile(90)),
        figure("p99 ms", percentile(99)),
        figure("mean ms", Some(of_all)),
        figure("± ms", Some(1.96 * (variance / means.len().max(1) as f64).sqrt())),
        figure("failed", Some(failed as f64)),
        figure("cpu us", cpu_us),
    ];
    Row { what: what.to_owned(), figures }
}
