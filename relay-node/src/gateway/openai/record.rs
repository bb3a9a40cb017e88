//! What is kept of a call when it is over: its figures, and who made it.

use relay_protocol::JobId;
use relay_runtime::auth::Identity;
use serde_json::json;
use tokio::time::Instant;

use super::Path;
use crate::audit::{Actor, Audit};
use crate::tenants::CallGuard;

/// Who makes a call, and that it is one of the tenant's that are under way.
pub(super) struct Admitted {
    pub(super) identity: Identity,
    pub(super) _held: CallGuard,
}

/// One call. Dropped without an outcome, its client went away.
pub(super) struct Record {
    pub(super) job_id: JobId,
    pub(super) traceparent: String,
    pub(super) model: Option<String>,
    /// The backend that has it, or had it last.
    pub(super) backend: Option<String>,
    pub(super) attempts: u32,
    /// It goes over the log.
    pub(super) is_durable: bool,
    path: Path,
    caller: Admitted,
    audit: Audit,
    began: Instant,
    outcome: Option<&'static str>,
}

impl Record {
    pub(super) fn begin(path: Path, job_id: JobId, traceparent: String, caller: Admitted, audit: Audit) -> Self {
        Self {
            job_id,
            traceparent,
            model: None,
            backend: None,
            attempts: 0,
            is_durable: false,
            path,
            caller,
            audit,
            began: Instant::now(),
            outcome: None,
        }
    }

    /// The first byte of the answer is there.
    pub(super) fn first_byte(&self) {
        metrics::histogram!("relay_openai_first_byte_seconds", "path" => self.path.path)
            .record(self.began.elapsed().as_secs_f64());
    }

    /// An attempt failed.
    pub(super) fn attempt_failed(&self, code: &'static str) {
        metrics::counter!("relay_openai_attempts_failed_total", "path" => self.path.path, "code" => code).increment(1);
    }

    /// It is over: `ok`, `rejected` by a backend, `failed` before the first byte, or `broken` after it.
    pub(super) fn ended(&mut self, outcome: &'static str) {
        self.outcome.get_or_insert(outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (path, outcome) = (self.path.path, self.outcome.unwrap_or("gone"));
        metrics::counter!("relay_openai_calls_total", "path" => path, "outcome" => outcome).increment(1);
        metrics::histogram!("relay_openai_call_seconds", "path" => path).record(self.began.elapsed().as_secs_f64());
        let actor = Actor { tenant: &self.caller.identity.tenant, subject: &self.caller.identity.subject };
        let detail = json!({
            "path": path,
            "task": self.path.task,
            "model": self.model,
            "backend": self.backend,
            "attempts": self.attempts,
            "durable": self.is_durable.then_some(true),
            "outcome": outcome,
            "duration_ms": self.began.elapsed().as_millis() as u64,
        });
        self.audit.call(actor, self.job_id, &self.traceparent, detail);
    }
}
