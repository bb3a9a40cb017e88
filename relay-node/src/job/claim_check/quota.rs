//! How much room a tenant's inputs take, counted by listing them now and then and by what this node adds in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::error::StoreError;
use super::paths;

/// Age at which a count is made anew.
pub(super) const COUNT_AGE_MAX: Duration = Duration::from_secs(60);
/// Tenants whose counts are kept; beyond it all are forgotten and counted again.
const TENANTS_MAX: usize = 10_000;

/// The rooms of all tenants.
#[derive(Debug)]
pub(super) struct Quota {
    store: Arc<dyn ObjectStore>,
    /// Bytes that one tenant may have; 0: any.
    bytes_max: u64,
    counted: Mutex<HashMap<String, Counted>>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    bytes: u64,
    at: Instant,
}

impl Quota {
    pub(super) fn new(store: Arc<dyn ObjectStore>, bytes_max: u64) -> Self {
        Self { store, bytes_max, counted: Mutex::default() }
    }

    /// Bytes that the tenant may still store, which is at least `wanted`.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`]; the store cannot be listed.
    pub(super) async fn room(&self, tenant: &str, wanted: u64) -> Result<u64, StoreError> {
        if self.bytes_max == 0 {
            return Ok(u64::MAX);
        }
        let known = self.known(tenant).filter(|counted| counted.at.elapsed() < COUNT_AGE_MAX);
        let bytes = match known {
            Some(counted) => counted.bytes,
            None => self.count(tenant).await?,
        };
        let left = self.bytes_max.saturating_sub(bytes);
        if left < wanted.max(1) {
            return Err(StoreError::QuotaExceeded { bytes, limit: self.bytes_max });
        }
        Ok(left)
    }

    /// Notes bytes that this node stored.
    pub(super) fn added(&self, tenant: &str, bytes: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = counted.get_mut(tenant) {
            counted.bytes = counted.bytes.saturating_add(bytes);
        }
    }

    fn known(&self, tenant: &str) -> Option<Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied()
    }

    async fn count(&self, tenant: &str) -> Result<u64, StoreError> {
        let mut bytes = 0_u64;
        for folder in [paths::uploads(tenant), paths::parts(tenant)] {
            let mut objects = self.store.list(Some(&Path::from(folder)));
            while let Some(object) = objects.try_next().await? {
                bytes = bytes.saturating_add(object.size);
            }
        }
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= TENANTS_MAX {
            counted.clear();
        }
        counted.insert(tenant.to_owned(), Counted { bytes, at: Instant::now() });
        Ok(bytes)
    }
}
