//! A task's parameters, checked.

use relay_protocol::ErrorCode;
use relay_protocol::param::{self, check_params};
use serde_json::{Map, Value};

use super::BuiltinTask;
use super::error::MediaError;

/// A task's parameters, each of a known name and within the bounds that the protocol lists.
pub(super) struct Params<'a> {
    task: BuiltinTask,
    values: &'a Map<String, Value>,
}

impl<'a> Params<'a> {
    /// Refuses what `task` does not take.
    pub(super) fn of(task: BuiltinTask, values: &'a Map<String, Value>) -> Result<Self, MediaError> {
        check_params(task.task(), values).map_err(|error| MediaError::Parameters {
            code: error.known_code().unwrap_or(ErrorCode::InvalidParameter),
            reason: error.message,
        })?;
        Ok(Self { task, values })
    }

    /// A whole number, or `default`.
    pub(super) fn count(&self, name: &str, default: u32) -> u32 {
        self.get(name).and_then(param::count).and_then(|count| u32::try_from(count).ok()).unwrap_or(default)
    }

    /// A number, or `default`.
    pub(super) fn number(&self, name: &str, default: f32) -> f32 {
        self.get(name).and_then(param::number).map_or(default, |number| number as f32)
    }

    /// Words in lower case, or `default`.
    pub(super) fn word(&self, name: &str, default: &str) -> String {
        self.get(name).and_then(Value::as_str).unwrap_or(default).to_ascii_lowercase()
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        debug_assert!(self.task.task().params().iter().any(|param| param.name == name), "{name} is no parameter");
        self.values.get(name)
    }
}
