//! What a backend says while it works, as events.

use relay_protocol::event::seq;
use relay_protocol::{Event, EventKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Run, STARTED_N, UPDATES_MAX};
use crate::backend::Update;
use crate::job::eta::Eta;

impl Run<'_> {
    /// Writes a backend's updates; returns the seq of the last. `measured`: its progress is the share of a known amount of work.
    pub(super) async fn write_updates(&self, mut updates: mpsc::Receiver<Update>, measured: bool) -> Option<u64> {
        let (mut batch, mut n) = (Vec::new(), STARTED_N);
        let (began, mut eta) = (Instant::now(), Eta::default());
        while updates.recv_many(&mut batch, UPDATES_MAX).await > 0 {
            self.updated.set(true);
            let now = self.context.clock.now_ms();
            let records = batch.drain(..).map(|update| {
                n += 1;
                let kind = if matches!(update, Update::Partial(_)) { EventKind::Partial } else { EventKind::Progress };
                let mut event = Event::new(self.job.job_id, self.attempt, n, kind, now);
                match update {
                    Update::Partial(partial) => event.partial = Some(partial),
                    Update::Progress(fraction) => {
                        event.fraction = Some(fraction);
                        let left = if measured { eta.left(began.elapsed(), fraction) } else { None };
                        event.eta = left.map(|left| now.saturating_add(left.as_millis() as u64));
                    }
                }
                self.context.events.record(&self.job.job.tenant, &event)
            });
            // Partials may be lost, the result may not: the attempt goes on.
            if let Err(error) = self.tell(records.collect(), |records| self.context.log.append(records)).await {
                tracing::warn!(%error, job_id = %self.job.job_id, "partial events were not written");
            }
        }
        (n > STARTED_N).then(|| seq(self.attempt, n))
    }
}
