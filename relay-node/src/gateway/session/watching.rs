//! The jobs that a session waits for: how a watch begins, anew after a broken connection too, and what comes of it.

use std::time::Duration;

use futures_util::FutureExt;
use relay_protocol::limits::SESSION_JOBS_MAX;
use relay_protocol::session::{EventV1, NoticeV1, ResumeV1, ResumedV1, WatchV1};
use relay_protocol::{ErrorCode, JobError, JobId};
use relay_runtime::auth::Scope;
use serde_json::json;
use tokio::sync::mpsc;

use super::{End, Reply, Session};
use crate::events::feed::{Delivery, Past, Reached, What};
use crate::events::hub::{WatchGuard, WatchSpec};
use crate::events::order::{Delivered, Order};
use crate::events::route::RoutedEvent;
use crate::gateway::resumption::{self, Notice};

/// Events sent before the session looks at its other work again.
const EVENTS_AT_ONCE: usize = 64;

/// A job that this session waits for.
pub(super) struct Watched {
    /// Tells what comes of this watch from what came of one before.
    pub(super) watch: u64,
    pub(super) order: Order,
    pub(super) guard: Option<WatchGuard>,
    /// Events that came before the job's receipt was sent; `None` once it was.
    pub(super) held: Option<Vec<RoutedEvent>>,
    /// What asked for it.
    pub(super) asked: Asked,
}

/// What asked for a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) request: u64,
    /// A resume, not a watch: the client says that it had the job before.
    pub(super) resumes: bool,
    /// The last event that the client had.
    pub(super) after_seq: u64,
}

/// A watch that was begun, or not.
pub(super) struct Begun {
    job_id: JobId,
    watch: u64,
    outcome: Result<WatchGuard, Notice>,
}

impl Session {
    pub(super) fn watch(&mut self, watch: WatchV1) -> Result<(), (u64, JobError)> {
        let WatchV1 { request, job_id, after_seq } = watch;
        self.allow(request, Scope::JobsRead, "jobs.events")?;
        self.room_for(request, job_id)?;
        let asked = Asked { request, resumes: false, after_seq };
        self.begin(vec![(job_id, asked)], Past::Whole);
        Ok(())
    }

    pub(super) async fn resume(&mut self, resume: ResumeV1) -> Result<(), End> {
        let request = resume.request;
        if let Err((request, error)) = self.allow(request, Scope::JobsRead, "jobs.events") {
            return self.fail(request, &error).await;
        }
        let more = resume.jobs.iter().filter(|(job_id, _)| !self.jobs.contains_key(job_id)).count();
        if self.jobs.len() + more > SESSION_JOBS_MAX {
            let message = format!("a session may wait for {SESSION_JOBS_MAX} jobs at a time");
            return self.fail(request, &JobError::new(ErrorCode::TooManyRequests, message)).await;
        }
        let token = match self.node.resume_tokens.read(&self.identity, &resume.resume_token) {
            Ok(token) => token,
            Err(error) => {
                if let Some(online) = self.node.online.get() {
                    online.audit.denied(self.actor(), "session.resume", ErrorCode::InvalidResumeToken.as_str());
                }
                let message = format!("{error}: watch each job with its last seq instead");
                return self.fail(request, &JobError::new(ErrorCode::InvalidResumeToken, message)).await;
            }
        };
        self.audit("resumed", json!({ "of": token.session_id, "jobs": resume.jobs.len() }));
        metrics::counter!("relay_sessions_resumed_total").increment(1);
        self.send(&ResumedV1 { request, jobs: resume.jobs.len() as u32 }, b"").await?;
        let partitions = self.node.online().map_err(End::Close)?.hub.records().partitions();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for (job_id, after_seq) in resume.jobs {
            let is_near = job_id.reply_partition(partitions) == token.reply_partition;
            let asked = Asked { request, resumes: true, after_seq };
            if is_near { &mut near } else { &mut far }.push((job_id, asked));
        }
        self.begin(near, Past::Hint(token.durable_from, token.revocable_from));
        self.begin(far, Past::Whole);
        Ok(())
    }

    /// Begins watches from the log; what is watched already begins anew.
    fn begin(&mut self, jobs: Vec<(JobId, Asked)>, past: Past) {
        let mut specs = Vec::with_capacity(jobs.len());
        for (job_id, asked) in jobs {
            let watch = self.next_watch();
            let order = Order::after(asked.after_seq);
            self.jobs.insert(job_id, Watched { watch, order, guard: None, held: None, asked });
            specs.push(self.spec(job_id, watch, asked.after_seq, past));
        }
        self.count_jobs();
        self.open(specs);
    }

    pub(super) fn next_watch(&mut self) -> u64 {
        self.watches += 1;
        self.watches
    }

    fn spec(&self, job_id: JobId, watch: u64, after_seq: u64, past: Past) -> WatchSpec {
        WatchSpec { job_id, tenant: self.tenant.clone(), past, after_seq, watch, again: false }
    }

    /// Opens watches at the hub, in a task of their own.
    fn open(&self, specs: Vec<WatchSpec>) {
        if specs.is_empty() {
            return;
        }
        let (node, sink, replies) = (self.node.clone(), self.sink.clone(), self.replies.clone());
        actix_web::rt::spawn(async move {
            let mut begun = Vec::with_capacity(specs.len());
            for spec in specs {
                let (job_id, watch) = (spec.job_id, spec.watch);
                let outcome = match node.online() {
                    Ok(online) => online.hub.watch(spec, sink.clone()).await.map_err(Notice::not_begun),
                    Err(error) => Err(Notice { error, retry_after_ms: None, goes_on: false, status: None }),
                };
                begun.push(Begun { job_id, watch, outcome });
            }
            // A session that has ended needs no watches.
            drop(replies.send(Reply::Watching(begun)).await);
        });
    }

    pub(super) async fn on_begun(&mut self, begun: Vec<Begun>) -> Result<(), End> {
        for Begun { job_id, watch, outcome } in begun {
            let Some(watched) = self.jobs.get_mut(&job_id).filter(|watched| watched.watch == watch) else { continue };
            match outcome {
                Ok(guard) => watched.guard = Some(guard),
                Err(notice) => self.tell(job_id, watch, notice).await?,
            }
        }
        Ok(())
    }

    /// Tells the client of a job what is no event, and ends its watch unless it goes on. A watch is refused by an error, as every request;
    /// one resume has many jobs.
    pub(super) async fn tell(&mut self, job_id: JobId, watch: u64, notice: Notice) -> Result<(), End> {
        let Some(watched) = self.jobs.get(&job_id).filter(|watched| watched.watch == watch) else { return Ok(()) };
        let Asked { request, resumes, .. } = watched.asked;
        if !notice.goes_on {
            self.jobs.remove(&job_id);
            self.count_jobs();
        }
        let Notice { error, retry_after_ms, goes_on, status } = notice;
        metrics::counter!("relay_watch_notices_total", "code" => error.code.clone()).increment(1);
        if !resumes && !goes_on && status.is_none() {
            return self.fail_later(request, &error, retry_after_ms).await;
        }
        let JobError { code, message, retryable } = error;
        let head = NoticeV1 { request, job_id, code, message, retryable, retry_after_ms, goes_on };
        let status = status.and_then(|status| serde_json::to_vec(&status).ok()).unwrap_or_default();
        self.send(&head, &status).await
    }

    pub(super) async fn on_deliveries(
        &mut self,
        first: Delivery,
        more: &mut mpsc::Receiver<Delivery>,
    ) -> Result<(), End> {
        self.on_delivery(first).await?;
        for _ in 1..EVENTS_AT_ONCE {
            let Some(Some(next)) = more.recv().now_or_never() else { break };
            self.on_delivery(next).await?;
        }
        let mut specs = Vec::new();
        for (watch, job_id, past) in self.sink.lagging.take() {
            let Some(watched) = self.jobs.get_mut(&job_id).filter(|watched| watched.watch == watch) else { continue };
            metrics::counter!("relay_watches_lagging_total").increment(1);
            // The same watch: what waits in its channel comes before what it missed.
            watched.guard = None;
            let after_seq = watched.order.last_seq();
            // Whatever asked for it has been answered, and the job is known.
            watched.asked = Asked { resumes: true, after_seq, ..watched.asked };
            specs.push(WatchSpec { again: true, ..self.spec(job_id, watch, after_seq, past) });
        }
        self.open(specs);
        Ok(())
    }

    async fn on_delivery(&mut self, delivery: Delivery) -> Result<(), End> {
        let Delivery { watch, job_id, what } = delivery;
        let Some(watched) = self.jobs.get_mut(&job_id).filter(|watched| watched.watch == watch) else { return Ok(()) };
        match what {
            What::Wake => Ok(()),
            What::Reached(reached) => self.on_reached(job_id, watch, reached).await,
            What::Event(event) => {
                if let Some(held) = &mut watched.held {
                    held.push(event);
                    return Ok(());
                }
                self.on_event(event).await
            }
        }
    }

    async fn on_reached(&mut self, job_id: JobId, watch: u64, reached: Reached) -> Result<(), End> {
        match resumption::of(reached, job_id) {
            Ok(None) => Ok(()),
            Ok(Some(notice)) => self.tell(job_id, watch, notice).await,
            Err(deleted) => {
                self.find_out(job_id, watch, deleted);
                Ok(())
            }
        }
    }

    /// Finds out what is to be said of a job without any event.
    fn find_out(&self, job_id: JobId, watch: u64, deleted: bool) {
        let Some(watched) = self.jobs.get(&job_id) else { return };
        let asked = (watched.asked.after_seq, watched.asked.resumes);
        let (node, tenant, replies) = (self.node.clone(), self.tenant.clone(), self.replies.clone());
        actix_web::rt::spawn(async move {
            let wait_ms = resumption::receipt_wait_ms(job_id, node.clock.now_ms());
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let notice = resumption::of_nothing(&node, &tenant, job_id, asked, deleted).await;
            // A session that has ended needs no answer.
            drop(replies.send(Reply::Nothing { job_id, watch, notice }).await);
        });
    }

    /// Tells what was found out, unless events have come meanwhile.
    pub(super) async fn on_nothing(&mut self, job_id: JobId, watch: u64, notice: Notice) -> Result<(), End> {
        let nothing_came =
            self.jobs.get(&job_id).is_some_and(|watched| watched.order.last_seq() == watched.asked.after_seq);
        if nothing_came { self.tell(job_id, watch, notice).await } else { Ok(()) }
    }

    pub(super) async fn on_event(&mut self, event: RoutedEvent) -> Result<(), End> {
        let Some(watched) = self.jobs.get_mut(&event.job_id) else { return Ok(()) };
        let delivered = watched.order.on(event);
        let (job_id, ended) = match &delivered {
            Delivered::Nothing => return Ok(()),
            Delivered::One(event) | Delivered::Two(_, event) => (event.job_id, event.kind.is_terminal()),
        };
        if ended {
            self.jobs.remove(&job_id);
            self.count_jobs();
        }
        match delivered {
            Delivered::Nothing => Ok(()),
            Delivered::One(event) => self.send_event(&event).await,
            Delivered::Two(receipt, event) => {
                self.send_event(&receipt).await?;
                self.send_event(&event).await
            }
        }
    }

    async fn send_event(&mut self, event: &RoutedEvent) -> Result<(), End> {
        let head = EventV1 {
            job_id: event.job_id,
            seq: event.seq,
            terminal: event.kind.is_terminal(),
            sent_at_us: self.node.now_us(),
        };
        self.send(&head, &event.json).await
    }
}
