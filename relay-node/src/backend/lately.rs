//! Models that some backend had until a moment ago. A list that changes from probe to probe must not fail the jobs that wait:
//! a model is gone when it was gone for a while. Pure.

use std::collections::BTreeMap;

/// How long a model counts as there after no backend lists it any more, in milliseconds.
pub const MODEL_GONE_MS: u64 = 60_000;

/// When each model was listed last.
#[derive(Debug, Default)]
pub struct Lately(BTreeMap<String, u64>);

impl Lately {
    /// These models are listed now; what was not for long is forgotten.
    pub fn listed<'a>(&mut self, now_ms: u64, models: impl IntoIterator<Item = &'a String>) {
        for model in models {
            match self.0.get_mut(model) {
                Some(at) => *at = now_ms,
                None => drop(self.0.insert(model.clone(), now_ms)),
            }
        }
        self.0.retain(|_, at| now_ms.saturating_sub(*at) < MODEL_GONE_MS);
    }

    /// Whether a model is there, or was a moment ago.
    pub fn has(&self, model: &str) -> bool {
        self.0.contains_key(model)
    }
}

#[cfg(test)]
#[path = "lately_test.rs"]
mod tests;
