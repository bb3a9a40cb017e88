//! Section `[dlq]`; meaning, unit and default of each key are in `config/relay-node.toml`.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::Unusable;

/// Limits of requests about dead letters.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct DlqSettings {
    pub requests_max: usize,
    pub page_records_max: usize,
    pub page_bytes_max: usize,
    pub marks_max: usize,
    pub read_timeout_ms: u64,
}

impl DlqSettings {
    /// Checks the bounds that types do not say.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), Unusable> {
        let all = [
            ("dlq.requests_max", self.requests_max as u64),
            ("dlq.page_records_max", self.page_records_max as u64),
            ("dlq.page_bytes_max", self.page_bytes_max as u64),
            ("dlq.marks_max", self.marks_max as u64),
            ("dlq.read_timeout_ms", self.read_timeout_ms),
        ];
        match all.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Unusable { key, problem: "must be at least 1".to_owned() }),
            None => Ok(()),
        }
    }

    /// Time that reading letters and marks may take for one request.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms)
    }
}
