//! The rules that a job obeys whichever way it comes in.

use crate::error_code::ErrorCode;
use crate::event::JobError;
use crate::job::{Input, Job, StoredObject};
use crate::limits::{
    ATTEMPT_NUMBER_MAX, ATTEMPTS_MAX, HOPS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INLINE_BYTES_MAX, MEDIA_TYPE_BYTES_MAX,
    NAME_BYTES_MAX, OBJECT_PATH_BYTES_MAX, TRACEPARENT_BYTES_MAX, UPLOAD_BYTES_MAX, URL_BYTES_MAX, is_name,
    is_object_path, is_sha256, is_tenant,
};
use crate::param::check_params;
use crate::time::TIME_MS_MAX;

impl Job {
    /// Checks every rule that does not depend on a node's settings. A job that passes fits a frame.
    ///
    /// # Errors
    /// The first broken rule, with its stable code.
    pub fn check(&self) -> Result<(), JobError> {
        if !is_tenant(&self.tenant) {
            return Err(invalid(format!(
                "tenant must have 1 to {NAME_BYTES_MAX} bytes, no control characters and no \"/\""
            )));
        }
        check_name("subject", &self.subject)?;
        if let Some(model) = &self.model {
            check_name("model", model)?;
        }
        if let Some(key) = &self.idempotency_key
            && (key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX)
        {
            return Err(invalid(format!("idempotency_key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")));
        }
        self.check_times_and_attempts()?;
        self.check_trace()?;
        check_params(self.task, &self.params)?;
        self.input.check()
    }

    fn check_times_and_attempts(&self) -> Result<(), JobError> {
        for (field, time) in [("deadline", self.deadline), ("not_before", self.not_before)] {
            if time.is_some_and(|ms| ms > TIME_MS_MAX) {
                return Err(invalid(format!("{field} must lie before the year 10000")));
            }
        }
        if self.attempts_max.is_some_and(|attempts| attempts == 0 || attempts > ATTEMPTS_MAX) {
            return Err(invalid(format!("attempts_max must be 1 to {ATTEMPTS_MAX}")));
        }
        if self.attempt > ATTEMPT_NUMBER_MAX {
            return Err(invalid(format!("attempt must be at most {ATTEMPT_NUMBER_MAX}")));
        }
        Ok(())
    }

    /// The text of a trace context need not make sense (a new trace begins then), but must be small and plain.
    fn check_trace(&self) -> Result<(), JobError> {
        let plain = |text: &String| text.len() <= TRACEPARENT_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        if !self.traceparent.as_ref().is_none_or(plain) {
            return Err(invalid(format!(
                "traceparent must be at most {TRACEPARENT_BYTES_MAX} visible ASCII characters"
            )));
        }
        if self.hops.len() > HOPS_MAX {
            return Err(invalid(format!("at most {HOPS_MAX} hops")));
        }
        self.hops.iter().try_for_each(|hop| check_name("hop", &hop.hop))
    }
}

impl Input {
    fn check(&self) -> Result<(), JobError> {
        let empty = match self {
            Self::Inline(media) => media.data.is_empty(),
            Self::Text(text) => text.is_empty(),
            Self::Object(object) => object.bytes == 0,
            Self::Url(url) => url.is_empty(),
        };
        if empty {
            return Err(JobError::new(ErrorCode::EmptyMedia, "the input is empty: send the media's bytes"));
        }
        match self {
            Self::Inline(media) => {
                check_inline_bytes(media.data.len())?;
                check_named(media.name.as_deref(), media.media_type.as_deref())
            }
            Self::Text(text) => check_inline_bytes(text.len()),
            Self::Object(object) => object.check(),
            Self::Url(url) if url.len() > URL_BYTES_MAX || url.chars().any(|c| c.is_control() || c == ' ') => Err(
                invalid(format!("url must have at most {URL_BYTES_MAX} bytes, no blanks and no control characters")),
            ),
            Self::Url(_) => Ok(()),
        }
    }
}

impl StoredObject {
    fn check(&self) -> Result<(), JobError> {
        if !is_object_path(&self.path) {
            return Err(invalid(format!(
                "path must be relative, of at most {OBJECT_PATH_BYTES_MAX} bytes, without empty parts, \".\", \"..\", \
                 backslashes and control characters"
            )));
        }
        if !is_sha256(&self.sha256) {
            return Err(invalid("sha256 must be 64 hex digits in lower case".to_owned()));
        }
        if self.bytes > UPLOAD_BYTES_MAX {
            return Err(JobError::new(
                ErrorCode::TooLarge,
                format!("a stored input of {} bytes is over the limit of {UPLOAD_BYTES_MAX}", self.bytes),
            ));
        }
        check_named(self.name.as_deref(), self.media_type.as_deref())
    }
}

fn check_inline_bytes(bytes: usize) -> Result<(), JobError> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(());
    }
    Err(JobError::new(
        ErrorCode::TooLarge,
        format!("an inline input of {bytes} bytes is over the limit of {INLINE_BYTES_MAX}: upload it instead"),
    ))
}

fn check_named(name: Option<&str>, media_type: Option<&str>) -> Result<(), JobError> {
    if let Some(name) = name {
        check_name("name", name)?;
    }
    let plain = |text: &str| text.len() <= MEDIA_TYPE_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if media_type.is_none_or(plain) {
        return Ok(());
    }
    Err(invalid(format!("media_type must be at most {MEDIA_TYPE_BYTES_MAX} printable ASCII characters")))
}

fn check_name(field: &str, name: &str) -> Result<(), JobError> {
    if is_name(name) {
        return Ok(());
    }
    Err(invalid(format!("{field} must have 1 to {NAME_BYTES_MAX} bytes and no control characters")))
}

fn invalid(message: String) -> JobError {
    JobError::new(ErrorCode::InvalidField, message)
}
