//! The coordinator as a whole: the only wiring, for the binary, for `standalone` and for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use anyhow::Context;
use relay_log::kafka::kafka_topics_commands;
use relay_log::port::Log;
use relay_runtime::auth::{Authenticator, check_bind};
use relay_runtime::clock::{Clock, SystemClock};
use relay_runtime::http_error::{not_found, shape_errors};
use relay_runtime::http_trace::request_spans;
use relay_runtime::metrics::Metrics;
use relay_runtime::ops_http::{self, Readiness, STARTING};
use relay_runtime::random::{Random, SystemRandom};
use relay_runtime::shutdown::Drain;
use relay_runtime::{metrics as recorder, tls};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::backends::discovery::Discoverer;
use crate::backends::discovery::core::Discovery;
use crate::backends::discovery::resolver::NameResolver;
use crate::backends::drains::{DrainKeeper, Drains};
use crate::backends::watch::{ProbePace, watch};
use crate::backends::{BackendEntry, Prober};
use crate::election::candidate::Candidate;
use crate::election::{Office, OfficeWatch};
use crate::http::{self, Api};
use crate::metrics;
use crate::registry::{RegistryHandle, RegistryRules};
use crate::settings::Settings;
use crate::topics;
use crate::topics::keeper::{Missing, TopicKeeper};
use crate::view::JobView;
use crate::view::reader::ViewReader;

/// Readiness code: the process is going down.
const DRAINING: &str = "draining";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// A running coordinator. Dropping it leaves it running until its actix system ends; [`stop`](Self::stop) ends it in order.
pub struct Coordinator {
    /// Where the HTTP API listens; the real port where the settings said 0.
    pub addr: SocketAddr,
    /// What keeps it from being ready: `starting`, `log`, `topics`, `draining`.
    pub readiness: Readiness,
    /// The registry, for readers in the same process.
    pub registry: RegistryHandle,
    /// The jobs, for readers in the same process.
    pub view: JobView,
    server: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
    electing: JoinHandle<()>,
    writing: JoinHandle<()>,
    watching: CancellationToken,
    writer: CancellationToken,
    drain_timeout: Duration,
}

impl Coordinator {
    /// Starts on this thread's actix system; returns once requests are served, whether or not the log can be reached.
    ///
    /// # Errors
    /// A setting that cannot be used, an address that cannot be bound.
    pub async fn start(settings: Settings, log: Arc<dyn Log>) -> anyhow::Result<Self> {
        settings.check()?;
        let backends = settings.backend_entries()?;
        let specs = topics::specs(&settings.topics)?;
        let authenticator = Arc::new(Authenticator::new(&settings.auth)?);
        tls::install_provider();
        let recorder = recorder::install()?;
        metrics::describe();

        let view = open_view(&settings)?;
        let clock = Arc::new(SystemClock);
        let (watching, writer) = (CancellationToken::new(), CancellationToken::new());
        let readiness = Readiness::starting();
        let (trail, trail_writer) =
            audit::open(&settings.name, settings.topics.audit_partitions, log.clone(), clock.clone());
        let (taking, office) = watch::channel(Office::default());
        let names = Discovery::new(settings.dns_entries()?, &backends, settings.backends.dns_keep_ms);
        let rules = registry_rules(&settings, &*clock);
        let registry = begin_registry(rules, (backends.clone(), &names), trail.clone(), office, writer.clone());
        let drains = Drains::new(log.clone(), clock.clone(), registry.clone());
        let api = Api {
            registry: registry.clone(),
            audit: trail.clone(),
            view: view.clone(),
            drains: drains.clone(),
            log: log.clone(),
            authenticator,
        };
        let served = serve(&settings, api, &readiness, &recorder).context("starting the HTTP API");
        let (addr, server, serving) = served.inspect_err(|_| writer.cancel())?;
        actix::spawn(view_reader(&settings, &view, &log).run(SystemRandom, watching.clone()));
        let who = (candidate_name(&settings), leader_url(&settings, addr));
        let candidate = Candidate::new(&settings.election, who, log.clone(), (trail, clock), taking);
        let electing = actix::spawn(candidate.run(watching.clone()));
        actix::spawn(say_role(registry.offices(), readiness.clone()));
        let keeper = TopicKeeper::new(log, specs, missing(&settings), readiness.clone());
        actix::spawn(keeper.run(SystemRandom, watching.clone()));
        watch_backends(&settings, backends, names, &registry, &watching)?;
        actix::spawn(drain_keeper(&settings, drains).run(SystemRandom, watching.clone()));
        let upkeep = (recorder, watching.clone());
        actix::spawn(async move { upkeep.0.upkeep(upkeep.1).await });
        readiness.clear(STARTING);
        tracing::info!(%addr, "coordinator serves");
        let writing = actix::spawn(trail_writer.run());
        Ok(Self {
            addr,
            readiness,
            registry,
            view,
            server,
            serving,
            electing,
            writing,
            watching,
            writer,
            drain_timeout: Duration::from_millis(settings.http.drain_timeout_ms),
        })
    }

    /// Waits until this coordinator leads.
    pub async fn wait_leading(&self) {
        // Err: the election is over, and it never will.
        _ = self.registry.offices().wait_for(|office| office.leads().is_some()).await;
    }

    /// The URL of the HTTP API.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Ends in order: not ready, leadership given up, probes and topic checks end, requests in progress are answered, the registry is empty, the
    /// audit trail is written; each for at most `http.drain_timeout_ms`.
    pub async fn stop(self) {
        let Self { readiness, registry, server, serving, electing, writing, watching, writer, drain_timeout, .. } =
            self;
        readiness.block(DRAINING, "the coordinator is going down");
        watching.cancel();
        let grace = drain_timeout + Duration::from_secs(1); // the server keeps its own limit, then is cut off
        let writing_stop = writing.abort_handle();
        Drain::new()
            .stage("election", grace, async {
                if let Err(error) = electing.await {
                    tracing::error!(%error, "the election died");
                }
            })
            .stage("http", grace, async {
                server.stop(true).await;
                match serving.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "the HTTP server failed"),
                    Err(error) => tracing::error!(%error, "the HTTP server died"),
                }
            })
            .stage("registry", drain_timeout, async {
                registry.drain(drain_timeout).await;
                writer.cancel();
                drop(registry);
            })
            .stage("audit", drain_timeout, async {
                // Ends by itself: the server's and the registry's ends of the trail are gone.
                if let Err(error) = writing.await {
                    tracing::error!(%error, "the audit trail died");
                }
            })
            .run()
            .await;
        writing_stop.abort(); // past its limit: counts what is left as dropped
    }
}

fn open_view(settings: &Settings) -> anyhow::Result<JobView> {
    let topics = &settings.topics;
    let retention = Duration::from_secs(u64::from(topics.event_retention_h) * 3_600);
    JobView::open(&settings.view, retention, topics.event_partitions)
}

fn view_reader(settings: &Settings, view: &JobView, log: &Arc<dyn Log>) -> ViewReader {
    let batch = (settings.view.batch_events_max, Duration::from_millis(settings.view.batch_wait_ms));
    let partitions = settings.topics.event_partitions;
    ViewReader::new(view.clone(), log.clone(), Arc::new(SystemClock), partitions, batch)
}

fn begin_registry(
    rules: RegistryRules,
    (backends, names): (Vec<BackendEntry>, &Discovery),
    trail: audit::AuditTrail,
    office: OfficeWatch,
    stop: CancellationToken,
) -> RegistryHandle {
    let witness = Arc::new(move |happening| trail.node(happening));
    let registry = RegistryHandle::start(rules, backends, witness, office, stop);
    // Nodes refuse no job for want of a backend that a name may lead to.
    registry.begin_with(names.found());
    registry
}

fn drain_keeper(settings: &Settings, drains: Drains) -> DrainKeeper {
    DrainKeeper::new(drains, Duration::from_millis(settings.backends.drain_forget_ms))
}

fn registry_rules(settings: &Settings, clock: &dyn Clock) -> RegistryRules {
    let nodes = &settings.nodes;
    RegistryRules {
        incarnation: clock.now_ms(), // rises from one start to the next
        node_timeout_ms: nodes.node_timeout_ms,
        heartbeat_interval_ms: nodes.heartbeat_interval_ms,
        heartbeat_fast_ms: nodes.heartbeat_fast_ms,
        forget_after_ms: nodes.forget_after_ms,
        nodes_max: nodes.nodes_max,
        leases: settings.lease_rules(),
        placement: settings.placement,
    }
}

/// What happens to topics that are missing.
fn missing(settings: &Settings) -> Missing {
    if settings.kafka.create_topics {
        return Missing::Create;
    }
    let kafka = settings.kafka_settings();
    Missing::Print(Box::new(move |specs| kafka_topics_commands(specs, &kafka)))
}

/// A name that no other life of a coordinator has.
fn candidate_name(settings: &Settings) -> String {
    format!("{}/{:016x}", settings.name, SystemRandom.next_u64())
}

/// Where nodes reach this coordinator, as far as it knows.
fn leader_url(settings: &Settings, addr: SocketAddr) -> Option<String> {
    match settings.election.advertised_url.trim_end_matches('/') {
        "" => (!addr.ip().is_unspecified()).then(|| format!("http://{addr}")),
        url => Some(url.to_owned()),
    }
}

/// Lets `/readyz` say whether this coordinator leads, until the election ends.
async fn say_role(mut office: OfficeWatch, readiness: Readiness) {
    loop {
        readiness.say("role", office.borrow_and_update().role());
        if office.changed().await.is_err() {
            return;
        }
    }
}

type Serving = (SocketAddr, ServerHandle, JoinHandle<std::io::Result<()>>);

fn serve(settings: &Settings, api: Api, readiness: &Readiness, metrics: &Metrics) -> anyhow::Result<Serving> {
    let (readiness, metrics) = (readiness.clone(), metrics.clone());
    let app = move || {
        App::new()
            .configure(ops_http::configure(readiness.clone(), metrics.clone()))
            .configure(http::configure(api.clone()))
            .default_service(web::route().to(not_found))
            .wrap(from_fn(shape_errors))
            .wrap(request_spans())
    };
    let addresses = check_bind(&settings.listen, &settings.auth)?;
    let limit_s = settings.http.drain_timeout_ms.div_ceil(1_000);
    let server = HttpServer::new(app)
        .workers(settings.http.threads)
        .max_connections(settings.http.connections_max)
        .backlog(BACKLOG)
        .disable_signals()
        .shutdown_timeout(limit_s)
        .bind(&addresses[..])
        .with_context(|| format!("listening on {}", settings.listen))?;
    let addr = server.addrs().first().copied().context("no address was bound")?;
    let server = server.run();
    let handle = server.handle();
    Ok((addr, handle, actix::spawn(server)))
}

fn watch_backends(
    settings: &Settings,
    backends: Vec<BackendEntry>,
    names: Discovery,
    registry: &RegistryHandle,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let prober =
        Prober::new(Duration::from_millis(settings.backends.probe_timeout_ms)).context("making an HTTP client")?;
    let pace = ProbePace {
        interval: Duration::from_millis(settings.backends.probe_interval_ms),
        backoff_max: Duration::from_millis(settings.backends.probe_backoff_max_ms),
    };
    for entry in backends {
        actix::spawn(watch(entry, prober.clone(), pace, registry.clone(), SystemRandom, shutdown.clone()));
    }
    let of = &settings.backends;
    let resolver = NameResolver::new(of.dns_servers.clone(), Duration::from_millis(of.dns_timeout_ms));
    let looks = (resolver, Duration::from_millis(of.dns_interval_ms));
    actix::spawn(Discoverer::new(names, looks, registry.clone(), (prober, pace)).run(shutdown.clone()));
    Ok(())
}
