//! The job view: what the events say of each job, in an embedded SQL store that can be thrown away and read anew from the
//! events' topic. [`projection`] and [`query`] are pure; [`store`] keeps rows and consumed offsets, [`reader`] feeds it.

pub mod bulk;
pub mod projection;
pub mod query;
pub mod reader;
pub mod settings;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use relay_protocol::JobId;
use tempfile::TempDir;

pub use self::settings::ViewSettings;

use self::projection::JobRow;
use self::query::{Listed, Query};
use self::store::{Limits, Store, StoreError};

/// Name of the store's file in a folder of its own.
const FILE: &str = "jobs.sqlite";

/// The view as its readers have it. Cheap to clone; the store is closed when the last clone and the reader are gone.
#[derive(Clone)]
pub struct JobView {
    store: Arc<Store>,
    caught_up: Arc<AtomicBool>,
    /// Most jobs on a page, and of a bulk request.
    pub page_max: usize,
    /// The folder of a store that goes with the process.
    _folder: Option<Arc<TempDir>>,
}

impl JobView {
    /// Opens the store, or makes it anew if it cannot be used.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn open(settings: &ViewSettings, retention: Duration, partitions: u32) -> anyhow::Result<Self> {
        let (file, folder) = if settings.file.as_os_str().is_empty() {
            let folder = tempfile::Builder::new().prefix("media-relay-view-").tempdir();
            let folder = folder.context("making a temporary folder for the job view")?;
            (folder.path().join(FILE), Some(Arc::new(folder)))
        } else {
            (settings.file.clone(), None)
        };
        Self::open_file(file, folder, settings, retention, partitions)
    }

    fn open_file(
        file: PathBuf,
        folder: Option<Arc<TempDir>>,
        settings: &ViewSettings,
        retention: Duration,
        partitions: u32,
    ) -> anyhow::Result<Self> {
        if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making the job view's folder {}", parent.display()))?;
        }
        let limits = Limits { rows_max: settings.rows_max, retention_ms: retention.as_millis() as u64, partitions };
        let shown = file.display().to_string();
        let store = Store::open(file, limits).with_context(|| format!("opening the job view {shown}"))?;
        let caught_up = Arc::new(AtomicBool::new(false));
        Ok(Self { store: Arc::new(store), caught_up, page_max: settings.page_max, _folder: folder })
    }

    /// Whether all events that there were at some moment since the start have been taken in.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }

    /// The jobs that `query` asks for, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, query: Query) -> Result<Listed, StoreError> {
        self.blocking(move |store| store.list(&query)).await
    }

    /// The job `id` of `tenant`, or of any tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, id: JobId, tenant: Option<String>) -> Result<Option<JobRow>, StoreError> {
        self.blocking(move |store| store.get(id, tenant.as_deref())).await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(StoreError::Failed(format!("a query died: {error}"))))
    }
}
