//! Parameters of tasks: their names, what each takes, and how a value is read.

use std::fmt;

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::event::JobError;
use crate::limits::PARAMS_BYTES_MAX;
use crate::task::Task;

/// Longest value that a refusal repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 64;

/// One parameter of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: ParamKind,
}

/// What a parameter's value must be. Text that reads as the wanted kind is taken too (`client-cli --param k=v` sends text).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ParamKind {
    /// A string.
    Text,
    /// A number between these two, both included.
    Number(f64, f64),
    /// A whole number between these two, both included.
    Count(u64, u64),
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// Width and height in pixels, `WIDTHxHEIGHT`, each between these two, both included.
    Size(u64, u64),
    /// True or false.
    Flag,
    /// Any JSON value.
    Json,
}

impl ParamKind {
    /// Whether `value` is of this kind and within its bounds.
    pub fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number(min, max) => number(value).is_some_and(|number| (min..=max).contains(&number)),
            Self::Count(min, max) => count(value).is_some_and(|count| (min..=max).contains(&count)),
            Self::Choice(words) => {
                value.as_str().is_some_and(|text| words.iter().any(|word| word.eq_ignore_ascii_case(text)))
            }
            Self::Size(min, max) => {
                let side = |text: &str| text.parse().is_ok_and(|pixels: u64| (min..=max).contains(&pixels));
                let sides = value.as_str().and_then(|text| text.split_once('x'));
                sides.is_some_and(|(width, height)| side(width) && side(height))
            }
            Self::Flag => value.is_boolean() || value.as_str().is_some_and(|text| text.parse::<bool>().is_ok()),
            Self::Json => true,
        }
    }
}

/// The kind as the end of a sentence: "must be …".
impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Number(min, max) => write!(f, "a number from {min} to {max}"),
            Self::Count(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Size(min, max) => write!(f, "WIDTHxHEIGHT in pixels, each from {min} to {max}"),
            Self::Flag => f.write_str("true or false"),
            Self::Json => f.write_str("JSON"),
        }
    }
}

/// The value as a number, also one that is text.
pub fn number(value: &Value) -> Option<f64> {
    value.as_str().map_or_else(|| value.as_f64(), |text| text.parse().ok())
}

/// The value as a whole number, also one that is text.
pub fn count(value: &Value) -> Option<u64> {
    value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok())
}

/// Checks that `task` knows each parameter and that each value is of its kind and within its bounds.
///
/// # Errors
/// [`ErrorCode::UnknownParameter`] or [`ErrorCode::InvalidParameter`], naming the parameter and what it takes.
pub fn check_params(task: Task, params: &Map<String, Value>) -> Result<(), JobError> {
    for (name, value) in params {
        let Some(param) = task.params().iter().find(|param| param.name == name) else {
            let known = task.params().iter().map(|param| param.name).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            return Err(JobError::new(
                ErrorCode::UnknownParameter,
                format!("task {task} does not know the parameter {name:?}; it knows: {known}"),
            ));
        };
        if !param.kind.takes(value) {
            let given = value.to_string();
            let given = if given.len() > SHOWN_BYTES_MAX { "something longer".to_owned() } else { given };
            return Err(invalid(format!("parameter {name:?} of task {task} must be {}, not {given}", param.kind)));
        }
    }
    let bytes: usize = params.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
    if bytes > PARAMS_BYTES_MAX {
        return Err(invalid(format!("the parameters have {bytes} bytes, over the limit of {PARAMS_BYTES_MAX}")));
    }
    Ok(())
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidParameter, message)
}
