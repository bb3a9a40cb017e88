//! Backends that DNS names lead to: looked up at an interval ([`resolver`]), compared with what was known ([`core`], pure),
//! told to the registry, and probed while they are there.

pub mod core;
pub mod resolver;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relay_protocol::cluster::BackendNameInfo;
use relay_runtime::random::SystemRandom;
use tokio_util::sync::CancellationToken;

use self::core::{Answer, Discovery};
use self::resolver::NameResolver;
use super::entry::BackendEntry;
use super::probe::Prober;
use super::watch::{ProbePace, watch};
use crate::metrics;
use crate::registry::RegistryHandle;

/// Looks the names up and keeps the registry told.
pub struct Discoverer {
    core: Discovery,
    resolver: NameResolver,
    interval: Duration,
    registry: RegistryHandle,
    prober: Prober,
    pace: ProbePace,
    /// The backends that are probed, and what ends that.
    watched: BTreeMap<Arc<str>, (BackendEntry, CancellationToken)>,
    /// The names as they were told last.
    names: Vec<BackendNameInfo>,
}

impl Discoverer {
    /// Looks `core`'s names up by `resolver` each `interval`; what it finds is probed by `prober` at `pace`.
    pub fn new(
        core: Discovery,
        (resolver, interval): (NameResolver, Duration),
        registry: RegistryHandle,
        (prober, pace): (Prober, ProbePace),
    ) -> Self {
        Self { core, resolver, interval, registry, prober, pace, watched: BTreeMap::new(), names: Vec::new() }
    }

    /// Runs until `shutdown`, on this thread's actix system. Without names it ends at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while self.core.entries().next().is_some() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.round(&shutdown) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    async fn round(&mut self, shutdown: &CancellationToken) {
        let asked = self.core.entries().map(|entry| self.resolver.ask(entry));
        let answers = futures_util::future::join_all(asked).await;
        let now_ms = self.registry.now_ms();
        for (at, answers) in answers.into_iter().enumerate() {
            if let Some(entry) = self.core.entries().nth(at) {
                metrics::lookup(&entry.url, outcome(&answers));
            }
            self.core.answered(now_ms, at, answers);
        }
        let found = self.core.found();
        self.report(&found.names);
        self.watch(&found.backends, shutdown);
        if let Err(error) = self.registry.renew(|roster| roster.found = found).await {
            tracing::warn!(%error, "what names lead to was not taken; it is told again with the next look-up");
        }
    }

    /// Says once what is wrong with a name, and when it is well again.
    fn report(&mut self, names: &[BackendNameInfo]) {
        for (at, name) in names.iter().enumerate() {
            let before = self.names.get(at).and_then(|before| before.problem.as_ref());
            match &name.problem {
                Some(problem) if before != Some(problem) => tracing::warn!(name = name.url, problem, "backends.dns"),
                None if before.is_some() => tracing::info!(name = name.url, "the name is well again"),
                _ => {}
            }
            metrics::name(&name.url, name.backends, name.problem.is_none());
        }
        self.names = names.to_vec();
    }

    /// Probes what is found, and nothing else.
    fn watch(&mut self, backends: &[BackendEntry], shutdown: &CancellationToken) {
        self.watched.retain(|_, (entry, stop)| {
            let stays = backends.contains(entry);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for entry in backends {
            if !self.watched.contains_key(&entry.url) {
                let stop = shutdown.child_token();
                let (prober, registry) = (self.prober.clone(), self.registry.clone());
                actix::spawn(watch(entry.clone(), prober, self.pace, registry, SystemRandom, stop.clone()));
                self.watched.insert(entry.url.clone(), (entry.clone(), stop));
            }
        }
    }
}

/// Label of a look-up in metrics.
fn outcome(answers: &(Answer, Answer)) -> &'static str {
    match answers {
        (Answer::Failed(_), _) | (_, Answer::Failed(_)) => "failed",
        (Answer::Found(_), _) | (_, Answer::Found(_)) => "found",
        _ => "nothing",
    }
}
