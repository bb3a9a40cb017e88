//! The three paths that operators and orchestrators ask: `/healthz`, `/readyz`, `/metrics`. No identity is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::{HttpResponse, web};
use serde::Serialize;
use tokio::sync::watch;

use crate::metrics::{CONTENT_TYPE, Metrics};

/// The condition a [`Readiness`] begins with.
pub const STARTING: &str = "starting";

/// What keeps the process from taking work, by code. Cheap to clone; every clone shows and changes the same.
#[derive(Debug, Clone)]
pub struct Readiness {
    reasons: Arc<watch::Sender<BTreeMap<&'static str, String>>>,
    facts: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// One thing that keeps the process from taking work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable name, such as `kafka` or `starting`.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

#[derive(Serialize)]
struct Answer {
    ready: bool,
    reasons: Vec<Reason>,
    #[serde(flatten)]
    facts: BTreeMap<&'static str, String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::starting()
    }
}

impl Readiness {
    /// Not ready, because of [`STARTING`]; [`clear`](Self::clear) that once the process takes work.
    pub fn starting() -> Self {
        let reasons = BTreeMap::from([(STARTING, "the process is starting".to_owned())]);
        Self { reasons: Arc::new(watch::Sender::new(reasons)), facts: Arc::default() }
    }

    /// `/readyz` says `name` as well, ready or not; a second call replaces the value.
    pub fn say(&self, name: &'static str, value: impl Into<String>) {
        self.facts().insert(name, value.into());
    }

    fn facts(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not ready from now on because of `code`; a second call replaces the message.
    pub fn block(&self, code: &'static str, message: impl Into<String>) {
        let message = message.into();
        self.reasons.send_if_modified(|reasons| {
            let before = reasons.insert(code, message.clone());
            if before.is_none() {
                tracing::warn!(code, message, "not ready");
            }
            before.as_ref() != Some(&message)
        });
    }

    /// `code` is no reason any more. Clearing what was never set does nothing.
    pub fn clear(&self, code: &'static str) {
        self.reasons.send_if_modified(|reasons| {
            let had = reasons.remove(code).is_some();
            if had && reasons.is_empty() {
                tracing::info!(last = code, "ready");
            }
            had
        });
    }

    /// Whether nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        self.reasons.borrow().is_empty()
    }

    /// What stands in the way, sorted by code.
    pub fn reasons(&self) -> Vec<Reason> {
        self.reasons.borrow().iter().map(|(&code, message)| Reason { code, message: message.clone() }).collect()
    }

    /// Waits until nothing stands in the way; at once when that is so already.
    pub async fn wait_ready(&self) {
        let mut changes = self.reasons.subscribe();
        // Err needs every sender gone, and `self` is one.
        _ = changes.wait_for(BTreeMap::is_empty).await;
    }
}

/// Adds `/healthz`, `/readyz` and `/metrics` to an app: `App::new().configure(ops_http::configure(readiness, metrics))`.
///
/// - `/healthz`: 200 as long as the process answers at all. For liveness probes: a process cut off from Kafka must not
///   be restarted for that.
/// - `/readyz`: 200 `{"ready":true,"reasons":[]}`, or 503 with the reasons; and what [`Readiness::say`] added.
/// - `/metrics`: Prometheus' text format.
pub fn configure(readiness: Readiness, metrics: Metrics) -> impl FnOnce(&mut web::ServiceConfig) {
    move |app| {
        app.app_data(web::Data::new(readiness))
            .app_data(web::Data::new(metrics))
            .service(web::resource("/healthz").get(healthz))
            .service(web::resource("/readyz").get(readyz))
            .service(web::resource("/metrics").get(render));
    }
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "alive": true }))
}

async fn readyz(readiness: web::Data<Readiness>) -> HttpResponse {
    let reasons = readiness.reasons();
    let mut response = if reasons.is_empty() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let facts = readiness.facts().clone();
    response.json(Answer { ready: reasons.is_empty(), reasons, facts })
}

async fn render(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(metrics.render())
}
