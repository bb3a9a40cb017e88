//! A task's parameters, checked.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::BuiltinTask;
use super::error::MediaError;

/// A task's parameters, all of known names. A value may be what it should be or text that reads as it (`"800"`), since
/// command lines send text.
pub(super) struct Params<'a> {
    values: &'a Map<String, Value>,
}

impl<'a> Params<'a> {
    /// Refuses a name that `task` does not have.
    pub(super) fn of(task: BuiltinTask, values: &'a Map<String, Value>) -> Result<Self, MediaError> {
        let known = task.params();
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Self { values }),
            Some(name) => Err(MediaError::UnknownParameter {
                task: task.name(),
                name: name.clone(),
                known: if known.is_empty() {
                    "it takes none".to_owned()
                } else {
                    format!("it has {}", known.join(", "))
                },
            }),
        }
    }

    /// A whole number within `range`, or `default`.
    pub(super) fn count(
        &self,
        name: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> Result<u32, MediaError> {
        let Some(value) = self.values.get(name) else { return Ok(default) };
        let whole = match value {
            Value::Number(number) => number.as_u64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let fitting = whole.and_then(|whole| u32::try_from(whole).ok()).filter(|whole| range.contains(whole));
        fitting.ok_or_else(|| invalid(name, format!("a whole number from {} to {}", range.start(), range.end()), value))
    }

    /// A number within `range`, or `default`.
    pub(super) fn number(
        &self,
        name: &'static str,
        default: f32,
        range: RangeInclusive<f32>,
    ) -> Result<f32, MediaError> {
        let Some(value) = self.values.get(name) else { return Ok(default) };
        let number = match value {
            Value::Number(number) => number.as_f64().map(|number| number as f32),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let fitting = number.filter(|number| range.contains(number));
        fitting.ok_or_else(|| invalid(name, format!("a number from {} to {}", range.start(), range.end()), value))
    }

    /// One of `choices` by its name (in any case), or `default`.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&'static str, T)],
        default: T,
    ) -> Result<T, MediaError> {
        let Some(value) = self.values.get(name) else { return Ok(default) };
        let chosen = value
            .as_str()
            .and_then(|text| choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(text.trim())))
            .map(|&(_, choice)| choice);
        chosen.ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|&(choice, _)| choice).collect();
            invalid(name, format!("one of {}", names.join(", ")), value)
        })
    }
}

fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then_some(number as u64)
}

fn invalid(name: &'static str, wanted: String, value: &Value) -> MediaError {
    let mut given = value.to_string();
    if given.len() > 64 {
        given = "something longer".to_owned();
    }
    MediaError::InvalidParameter { name, wanted, given }
}
