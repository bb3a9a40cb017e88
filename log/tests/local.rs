//! The embedded log: the behaviour of every log, and what it alone promises.

use std::sync::Arc;

use async_trait::async_trait;
use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Log, LogError};

mod conformance;
#[path = "local/crashes.rs"]
mod crashes;
#[path = "kafka/support.rs"]
#[allow(dead_code, reason = "shared with the Kafka tests, which need more of it")]
mod support;

/// A folder of the test's own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Opens it; a dropped instance may still be closing.
    async fn open(&self) -> anyhow::Result<Arc<dyn Log>> {
        // A small cache, so that most reads come from the store.
        let settings = LocalLogSettings { cache_bytes_max: 20_000, ..LocalLogSettings::default() };
        for _ in 0..500 {
            match LocalLog::open(self.0.path(), &settings) {
                Ok(log) => return Ok(Arc::new(log)),
                Err(LogError::Unavailable(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("the folder stays open")
    }
}

#[async_trait]
impl conformance::Harness for Folder {
    async fn log(&self) -> anyhow::Result<Arc<dyn Log>> {
        self.open().await
    }

    async fn reopen(&self) -> anyhow::Result<Arc<dyn Log>> {
        self.open().await
    }
}

conformance::conformance!(Folder::new());

#[tokio::test]
async fn a_second_process_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let _first = LocalLog::open(folder.path(), &LocalLogSettings::default())?;
    let second = LocalLog::open(folder.path(), &LocalLogSettings::default());
    match second {
        Err(LogError::Unavailable(why)) => assert!(why.contains("another process"), "{why}"),
        _ => panic!("two instances wrote one folder"),
    }
    Ok(())
}
