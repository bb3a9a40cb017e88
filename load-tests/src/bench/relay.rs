//! The relay with a backend that takes no time: from submit to the terminal event at the client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use client_cli::{Client, ClientSettings, JobInput, JobRequest};
use relay_log::port::Log;
use relay_node::backend::{Backend, BackendError, Call, Output, Updates};
use relay_protocol::Event;
use relay_runtime::settings::Map;
use standalone::{Options, Standalone};
use tokio_util::sync::CancellationToken;

/// Longest wait for an answer or an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does nothing, at once: what is left is the relay.
struct Instantly;

#[async_trait]
impl Backend for Instantly {
    fn name(&self) -> &str {
        "zero-time"
    }

    async fn call(&self, _: Call, _: Updates) -> Result<Output, BackendError> {
        Ok(Output { result: serde_json::json!({}), media: None })
    }
}

/// Where jobs were how long, summed over all of them, in microseconds; hops are named by where they lead.
pub(super) type HopSums = BTreeMap<String, (u64, u64)>;

/// A relay on threads of its own, and a client of it.
pub(super) struct Relay {
    hops: Mutex<HopSums>,
    client: Client,
    value: Bytes,
    stop: CancellationToken,
    thread: Mutex<Option<std::thread::JoinHandle<anyhow::Result<()>>>>,
}

impl Relay {
    /// Starts a relay on `log`, or on the embedded log without one, and connects to it; its jobs have inputs of
    /// `value_bytes`.
    pub(super) async fn start(
        folder: &Path,
        log: Option<Arc<dyn Log>>,
        partitions: u32,
        value_bytes: usize,
    ) -> anyhow::Result<Self> {
        let env = Map::from([
            // As many slots as jobs: a backend that takes no time has no limit either.
            ("RELAY__BUILTIN__SLOTS".to_owned(), "1024".to_owned()),
            ("RELAY__TOPICS__LANE_PARTITIONS".to_owned(), partitions.to_string()),
        ]);
        let options = Options { log, env, builtin: Some(Arc::new(Instantly)), ..Options::new(folder) };
        let (ready, url) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let relay = Standalone::start(options).await?;
                ensure!(ready.send(relay.url()).is_ok(), "nobody waits for the relay");
                ended.cancelled().await;
                relay.stop().await;
                Ok(())
            })
        });
        let servers = url.await.context("the relay does not start")?;
        let client = Client::connect(ClientSettings { servers, ..ClientSettings::default() }).await?;
        Ok(Self {
            hops: Mutex::default(),
            client,
            value: Bytes::from(vec![7; value_bytes]),
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// One job, from submit to its terminal event.
    pub(super) async fn request(&self) -> anyhow::Result<()> {
        let job = JobRequest::new("probe", JobInput::Bytes(self.value.clone()));
        let submitted = tokio::time::timeout(PATIENCE, self.client.submit(job)).await;
        let mut handle = submitted.context("a submit was not answered")??;
        let mut last = Bytes::new();
        loop {
            match tokio::time::timeout(PATIENCE, handle.next_event()).await {
                Ok(event) => match event? {
                    Some(event) => last = event.json,
                    None => break,
                },
                Err(_) => {
                    let status = tokio::time::timeout(PATIENCE, self.client.status(handle.job_id())).await;
                    let (seen, state) = (String::from_utf8_lossy(&last), status);
                    anyhow::bail!("events stopped after {seen}; the job's state: {state:?}");
                }
            }
        }
        ensure!(
            last.windows(11).any(|window| window == b"\"completed\""),
            "the job did not complete: {}",
            String::from_utf8_lossy(&last)
        );
        self.add_hops(&last)
    }

    /// Adds the times between the hops of a terminal event, and from the last hop to now.
    fn add_hops(&self, event: &[u8]) -> anyhow::Result<()> {
        let now_us = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
        let event: Event = serde_json::from_slice(event)?;
        let mut sums = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = event.hops.iter().skip(1).map(|hop| (hop.hop.as_str(), hop.at_us)).chain([("event", now_us)]);
        for ((name, at_us), before) in ends.zip(&event.hops) {
            let (count, sum) = sums.entry(format!("{} to {name}", before.hop)).or_default();
            *count += 1;
            *sum += at_us.saturating_sub(before.at_us);
        }
        Ok(())
    }

    /// Mean time on each part of the way, in milliseconds.
    pub(super) fn mean_hops_ms(&self) -> Vec<(String, f64)> {
        let sums = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter().map(|(name, (count, sum))| (name.clone(), *sum as f64 / *count as f64 / 1e3)).collect()
    }

    /// Ends client and relay.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        self.client.clone().close().await;
        self.stop.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow::anyhow!("the relay panicked"))?
    }
}
