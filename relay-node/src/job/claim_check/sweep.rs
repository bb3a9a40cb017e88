//! Removes what nobody will ask for: unfinished uploads, inputs that no job has named, inputs and results past their
//! retention. Every node sweeps, a bounded number of objects at a time; two that meet do no harm.

use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use relay_runtime::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use super::settings::StoreSettings;
use super::{ClaimCheck, paths};

/// Objects removed by one request.
const DELETES_AT_ONCE: usize = 256;

/// Time that the sweep waits beyond an age, in milliseconds: a job that names an upload just before that age has been
/// marked by then.
const MARGIN_MS: u64 = 600_000;

/// How old things may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    /// What no job has named, in milliseconds; `None`: any age.
    orphan_ms: Option<u64>,
    /// Inputs and results, in milliseconds; `None`: any age.
    retention_ms: Option<u64>,
}

/// What the sweep does with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// It goes unless a job has named it; then it goes with that mark's age.
    AskMark,
    Remove,
}

impl Ages {
    pub(super) fn of(settings: &StoreSettings) -> Self {
        Self { orphan_ms: settings.orphan_age_ms(), retention_ms: settings.retention_ms() }
    }

    /// Whether an upload that no job has named may be removed soon: none may name it any more.
    pub(super) fn is_orphan(self, upload: &ObjectMeta, now_ms: u64) -> bool {
        is_older(age_ms(upload, now_ms), self.orphan_ms.or(self.retention_ms), 0)
    }

    /// The same of an upload with this mark.
    pub(super) fn is_past_retention(self, mark: &ObjectMeta, now_ms: u64) -> bool {
        is_older(age_ms(mark, now_ms), self.retention_ms, 0)
    }

    /// What becomes of an object of this age.
    fn verdict(self, folder: &str, age_ms: u64) -> Verdict {
        let older = |most| is_older(age_ms, most, MARGIN_MS);
        match folder {
            paths::PARTS if older(self.orphan_ms) => Verdict::Remove,
            // Retention begins with the newest job that names the input, so the mark's age counts, not the input's.
            paths::UPLOADS if older(self.orphan_ms) || older(self.retention_ms) => Verdict::AskMark,
            paths::USED | paths::RESULTS if older(self.retention_ms) => Verdict::Remove,
            _ => Verdict::Keep,
        }
    }
}

fn is_older(age_ms: u64, most: Option<u64>, margin_ms: u64) -> bool {
    most.is_some_and(|most| age_ms > most.saturating_add(margin_ms))
}

fn age_ms(object: &ObjectMeta, now_ms: u64) -> u64 {
    now_ms.saturating_sub(object.last_modified.timestamp_millis().max(0) as u64)
}

/// What one run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that were looked at.
    pub seen: usize,
    /// Objects that were removed.
    pub removed: usize,
    /// All folders were looked at to their ends.
    pub round: bool,
}

/// Goes through the store in rounds; a round may take many runs.
pub struct Sweeper {
    broom: Broom,
    objects_max: usize,
    /// The folder under way, as an index of [`FOLDERS`], and what is left of it.
    at: usize,
    left: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    staged: Staged,
}

/// Tells what goes, and removes it.
struct Broom {
    claims: ClaimCheck,
    ages: Ages,
}

/// The folders of a round.
const FOLDERS: [&str; 4] = [paths::PARTS, paths::UPLOADS, paths::USED, paths::RESULTS];

impl Sweeper {
    /// A sweeper at the begin of a round.
    pub fn new(claims: ClaimCheck, settings: &StoreSettings) -> Self {
        let staged = Staged { root: claims.inner.folder.as_ref().map(|folder| folder.path.clone()), open: Vec::new() };
        Self {
            broom: Broom { claims, ages: Ages::of(settings) },
            objects_max: settings.sweep_objects_max,
            at: 0,
            left: None,
            staged,
        }
    }

    /// Looks at the next objects, as many as a run may.
    ///
    /// # Errors
    /// The store cannot be used; the next run goes on behind what failed.
    pub async fn run(&mut self, now_ms: u64) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut doomed: Vec<ObjectMeta> = Vec::new();
        while swept.seen < self.objects_max {
            let folder = FOLDERS[self.at];
            let objects = self.left.get_or_insert_with(|| self.broom.claims.store().list(Some(&Path::from(folder))));
            let Some(object) = objects.next().await else {
                swept.removed += self.broom.remove(folder, &mut doomed).await?;
                self.left = None;
                self.at = (self.at + 1) % FOLDERS.len();
                if self.at == 0 {
                    swept.round = true;
                    break;
                }
                continue;
            };
            // An object that vanished between listing and looking was removed by another node.
            let object = match object {
                Err(object_store::Error::NotFound { .. }) => continue,
                object => object?,
            };
            swept.seen += 1;
            if self.broom.is_doomed(folder, &object, now_ms).await? {
                doomed.push(object);
            }
            if doomed.len() >= DELETES_AT_ONCE {
                swept.removed += self.broom.remove(folder, &mut doomed).await?;
            }
        }
        swept.removed += self.broom.remove(FOLDERS[self.at], &mut doomed).await?;
        if let Some(age_ms) = self.broom.ages.orphan_ms {
            swept.removed += self.staged.run(self.objects_max, now_ms, age_ms).await?;
        }
        Ok(swept)
    }
}

impl Broom {
    async fn is_doomed(&self, folder: &str, object: &ObjectMeta, now_ms: u64) -> Result<bool, StoreError> {
        match self.ages.verdict(folder, age_ms(object, now_ms)) {
            Verdict::Keep => Ok(false),
            Verdict::Remove => Ok(true),
            Verdict::AskMark => {
                let Some(mark) = paths::used(object.location.as_ref()) else { return Ok(false) };
                Ok(match self.claims.head(&mark).await? {
                    None => true,
                    Some(mark) => is_older(age_ms(&mark, now_ms), self.ages.retention_ms, MARGIN_MS),
                })
            }
        }
    }

    async fn remove(&self, folder: &'static str, doomed: &mut Vec<ObjectMeta>) -> Result<usize, StoreError> {
        if doomed.is_empty() {
            return Ok(0);
        }
        let bytes: u64 = doomed.iter().map(|object| object.size).sum();
        let objects = doomed.drain(..).map(|object| object.location.to_string()).collect();
        let removed = self.claims.delete(objects).await?;
        metrics::counter!("relay_store_swept_total", "folder" => folder).increment(removed as u64);
        metrics::counter!("relay_store_swept_bytes_total", "folder" => folder).increment(bytes);
        Ok(removed)
    }
}

/// Sweeps until `stop`, at intervals that differ from node to node.
pub async fn keep_swept(
    mut sweeper: Sweeper,
    interval: Duration,
    first_after: Duration,
    clock: std::sync::Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut wait = first_after;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        wait = interval;
        let began = Instant::now();
        match sweeper.run(clock.now_ms()).await {
            Ok(Swept { removed: 0, .. }) => {}
            Ok(swept) => tracing::info!(?swept, "the object store was swept"),
            Err(error) => {
                metrics::counter!("relay_store_sweep_failures_total").increment(1);
                tracing::warn!(%error, "the object store could not be swept");
            }
        }
        metrics::histogram!("relay_store_sweep_seconds").record(began.elapsed().as_secs_f64());
    }
}

/// Files that a folder's writers left when their node was killed: they are no objects, so that listings pass them over.
struct Staged {
    root: Option<PathBuf>,
    /// Folders under way, the deepest last.
    open: Vec<std::fs::ReadDir>,
}

impl Staged {
    /// Looks at the next files; returns how many were removed.
    async fn run(&mut self, files_max: usize, now_ms: u64, age_ms: u64) -> Result<usize, StoreError> {
        let Some(root) = self.root.clone() else { return Ok(0) };
        let mut open = std::mem::take(&mut self.open);
        let walk = move || {
            if open.is_empty() {
                open.push(std::fs::read_dir(root)?);
            }
            let (mut seen, mut removed) = (0, 0);
            while let Some(folder) = open.last_mut().filter(|_| seen < files_max) {
                // What cannot be read any more was removed meanwhile.
                let Some(Ok(entry)) = folder.next() else {
                    open.pop();
                    continue;
                };
                seen += 1;
                let Ok(facts) = entry.metadata() else { continue };
                if facts.is_dir() {
                    open.extend(std::fs::read_dir(entry.path()));
                    continue;
                }
                let changed = facts.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let old = changed.is_some_and(|at| now_ms.saturating_sub(at.as_millis() as u64) > age_ms);
                let staged = entry.file_name().to_str().is_some_and(is_staged);
                removed += usize::from(old && staged && std::fs::remove_file(entry.path()).is_ok());
            }
            Ok::<_, std::io::Error>((open, removed))
        };
        let (open, removed) = tokio::task::spawn_blocking(walk).await.map_err(std::io::Error::other)??;
        self.open = open;
        metrics::counter!("relay_store_swept_total", "folder" => "staged").increment(removed as u64);
        Ok(removed)
    }
}

/// Whether a file is what a writer has not made an object yet: `NAME#NUMBER`.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
