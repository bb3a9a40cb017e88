//! The fields of a durable call's body: each is used, or refused by name. What a job cannot carry is not left out silently.

use relay_protocol::{ErrorCode, JobError};
use serde_json::{Map, Value};

/// What is left of a body's fields.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// A field that is `null` counts as left out, as it does for the backends.
    pub(super) fn new(fields: Map<String, Value>) -> Self {
        Self(fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A text; `None` if it is left out or empty.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, JobError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(_) => Err(invalid(format!("{name} must be text"))),
        }
    }

    /// The fields that are the task's parameters: under which name, and what it calls them. Their values are checked with the job.
    pub(super) fn params(&mut self, names: &[(&str, &str)]) -> Map<String, Value> {
        names.iter().filter_map(|(field, param)| Some(((*param).to_owned(), self.take(field)?))).collect()
    }

    /// Drops a field that says nothing beyond what a durable call does anyway.
    ///
    /// # Errors
    /// It says something else, which `why` explains.
    pub(super) fn only(&mut self, name: &str, allowed: &[Value], why: &str) -> Result<(), JobError> {
        match self.take(name) {
            Some(value) if !allowed.contains(&value) => Err(refused(name, why)),
            _ => Ok(()),
        }
    }

    /// Refuses what is left.
    ///
    /// # Errors
    /// Something is left.
    pub(super) fn done(mut self) -> Result<(), JobError> {
        // Who the end user is changes no answer.
        self.0.remove("user");
        match self.0.keys().next() {
            Some(name) => Err(refused(name, "a job cannot carry it")),
            None => Ok(()),
        }
    }
}

/// A field that does not go with a durable call.
pub(super) fn refused(name: &str, why: &str) -> JobError {
    invalid(format!("{name:?} does not go with {}: {why}; leave it out, or the header", super::DURABLE))
}

/// A field that breaks a rule.
pub(super) fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidField, message)
}
