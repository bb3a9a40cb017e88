//! Section `[view]`.

use std::path::PathBuf;

use serde::Deserialize;

/// Section `[view]`; meaning, unit and default of each key are in `config/coordinator.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct ViewSettings {
    pub file: PathBuf,
    pub rows_max: u64,
    pub page_max: usize,
    pub batch_events_max: usize,
    pub batch_wait_ms: u64,
}
