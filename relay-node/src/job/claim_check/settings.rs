//! Section `[store]`; meaning, unit and default of each key are in `config/relay-node.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::settings::Unusable;

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;
/// Largest cache, in bytes: what its permits can count.
const CACHE_BYTES_MAX: u64 = 1 << 40;

/// Where objects lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A folder that all nodes share.
    Folder,
    /// A bucket of an S3-compatible server.
    S3,
}

/// Section `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct StoreSettings {
    pub kind: StoreKind,
    pub folder: PathBuf,
    pub bucket: String,
    pub prefix: String,
    pub endpoint: String,
    pub region: String,
    pub credentials_file: String,
    pub allow_http: bool,
    pub request_timeout_ms: u64,
    pub cache_folder: String,
    pub cache_bytes_max: u64,
    pub tenant_bytes_max: u64,
    pub upload_parts_max: usize,
    pub orphan_age_h: u64,
    pub retention_h: u64,
    pub sweep_interval_ms: u64,
    pub sweep_objects_max: usize,
}

impl StoreSettings {
    /// Checks the bounds that types do not say; an upload may have `upload_bytes_max` bytes.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self, upload_bytes_max: u64) -> Result<(), Unusable> {
        let wrong = |key, problem: String| Err(Unusable { key, problem });
        if self.kind == StoreKind::S3 && self.bucket.is_empty() {
            return wrong("store.bucket", "must name the bucket when store.kind is s3".to_owned());
        }
        if self.endpoint.starts_with("http://") && !self.allow_http {
            let problem = "is not https: objects would cross the network in the clear; store.allow_http allows it";
            return wrong("store.endpoint", problem.to_owned());
        }
        if self.cache_bytes_max < upload_bytes_max || self.cache_bytes_max > CACHE_BYTES_MAX {
            let problem = format!(
                "must be {upload_bytes_max} (inputs.upload_bytes_max) to {CACHE_BYTES_MAX}: a job's whole input goes there"
            );
            return wrong("store.cache_bytes_max", problem);
        }
        let parts_min = upload_bytes_max.div_ceil(super::parts::PART_BYTES as u64) * 2;
        if (self.upload_parts_max as u64) < parts_min {
            let problem = format!("must be at least {parts_min} for uploads of inputs.upload_bytes_max");
            return wrong("store.upload_parts_max", problem);
        }
        if self.retention_h != 0 && self.retention_h < self.orphan_age_h {
            return wrong("store.retention_h", "must be 0 or at least store.orphan_age_h".to_owned());
        }
        if self.sweep_objects_max == 0 || self.sweep_interval_ms == 0 || self.request_timeout_ms == 0 {
            let problem = "and store.sweep_interval_ms, store.request_timeout_ms must be at least 1";
            return wrong("store.sweep_objects_max", problem.to_owned());
        }
        Ok(())
    }

    /// Age at which what no job has named is removed, in milliseconds; `None`: never.
    pub fn orphan_age_ms(&self) -> Option<u64> {
        (self.orphan_age_h > 0).then_some(self.orphan_age_h.saturating_mul(HOUR_MS))
    }

    /// How long inputs and results are kept, in milliseconds; `None`: for ever.
    pub fn retention_ms(&self) -> Option<u64> {
        (self.retention_h > 0).then_some(self.retention_h.saturating_mul(HOUR_MS))
    }

    /// Time in which the server must answer a request, and silence within its answer.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}
