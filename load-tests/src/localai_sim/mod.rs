//! A simulator of LocalAI servers, for load tests: it answers with the shapes, errors and delays of recorded answers
//! (`fixtures/localai`), and with content that is made from the input. It does no inference, and no program uses it as a
//! backend unless told to.

pub mod audio;
mod content;
mod counters;
mod failure;
mod http;
pub mod model;
pub mod settings;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

pub use content::words_of;
pub use counters::{Counters, ModelCounters};
use failure::Failure;
use model::Model;
use settings::{Kind, SimulatorSettings};

/// What a simulator's handlers share.
pub(crate) struct State {
    pub(crate) settings: SimulatorSettings,
    pub(crate) models: BTreeMap<String, Arc<Model>>,
    /// Requests to models now, for `concurrent_requests_max`.
    pub(crate) busy: AtomicU64,
    /// Whether `/readyz` succeeds.
    pub(crate) ready: AtomicBool,
    /// Fired by SIGTERM: running requests fail at once.
    pub(crate) ending: CancellationToken,
}

impl State {
    fn new(settings: SimulatorSettings) -> Self {
        let clock = model::Pace::new(settings.speed);
        let models = settings
            .models
            .iter()
            .map(|model| (model.id.clone(), Arc::new(Model::new(model.clone(), &settings, clock.clone()))))
            .collect();
        let (busy, ready) = (AtomicU64::new(0), AtomicBool::new(true));
        Self { settings, models, busy, ready, ending: CancellationToken::new() }
    }

    /// The model of a request; without a name the first of the wanted kind, as LocalAI does.
    pub(crate) fn model(&self, name: Option<&str>, kind: Kind) -> Result<Arc<Model>, Failure> {
        let found = match name.filter(|name| !name.is_empty()) {
            Some(name) => self.models.get(name).ok_or_else(|| Failure::unknown_model(name))?,
            None => self
                .models
                .values()
                .find(|model| model.settings.kind == kind && !model.settings.load_fails)
                .ok_or_else(|| Failure::unknown_model(""))?,
        };
        Ok(found.clone())
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        let models = self.models.iter().map(|(id, model)| (id.clone(), model.counters())).collect();
        Counters { models }
    }
}

/// A running simulator; it ends with [`Simulator::stop`].
pub struct Simulator {
    /// Its base URL.
    pub url: String,
    state: Arc<State>,
    server: ServerHandle,
}

impl Simulator {
    /// Starts on the current actix system.
    ///
    /// # Errors
    /// An address that cannot be bound.
    pub fn start(settings: SimulatorSettings) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(&settings.listen).with_context(|| format!("cannot listen on {}", settings.listen))?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(State::new(settings));
        let shared = web::Data::from(state.clone());
        let server = HttpServer::new(move || App::new().app_data(shared.clone()).configure(http::routes))
            .workers(1)
            .disable_signals()
            // A client that goes away ends its request, as it does at LocalAI.
            .h1_allow_half_closed(false)
            .listen(listener)?
            .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(Self { url, state, server: handle })
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    /// Kills a model's worker, as the kernel would for want of memory. `false`: there is no such model, or it is not loaded.
    pub fn kill(&self, model: &str) -> bool {
        self.state.models.get(model).is_some_and(|model| model.kill())
    }

    /// Sets what `/readyz` says.
    pub fn set_ready(&self, ready: bool) {
        self.state.ready.store(ready, Ordering::SeqCst);
    }

    /// Ends as LocalAI does on SIGTERM: running requests fail, nothing is drained.
    pub async fn stop(self) {
        self.state.ending.cancel();
        self.server.stop(true).await;
    }
}
