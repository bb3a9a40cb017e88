//! What can be wrong with a built-in task's input.

use std::io;

use relay_protocol::ErrorCode;

/// A built-in task was called off between two steps; nothing of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Why a built-in task has no result. [`MediaError::code`] is stable; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The source has no bytes.
    #[error("the input is empty; send a file with content")]
    Empty,
    /// The content is of no kind of media that is recognised, whatever its name says.
    #[error("{input} is not recognised as media; send {accepted}")]
    NotMedia {
        /// How the input was called: its name, its declared media type.
        input: String,
        /// What the task reads.
        accepted: &'static str,
    },
    /// Recognised, but this task or this build cannot read it.
    #[error("{found} is not supported here; send {accepted}")]
    Unsupported {
        /// What it is.
        found: String,
        /// What the task reads.
        accepted: &'static str,
    },
    /// It ends before its own header says it does.
    #[error("the input is cut off: {reason}; send the whole file again")]
    Truncated {
        /// What is missing.
        reason: String,
    },
    /// It breaks the rules of its own format.
    #[error("the input is damaged: {reason}; send an intact copy, or encode it again")]
    Corrupt {
        /// Where, or which rule.
        reason: String,
    },
    /// The audio lasts longer than [`audio_duration_max_s`](super::Limits::audio_duration_max_s).
    #[error("the audio is longer than {max_s} s (limit audio_duration_max_s); cut it into parts, or raise the limit")]
    TooLong {
        /// The limit, in seconds.
        max_s: u32,
    },
    /// A limit other than that of duration.
    #[error("{what} is beyond the limit {limit} = {max}; {advice}")]
    TooLarge {
        /// What is too large, with its size where that is known.
        what: String,
        /// The limit's name in [`Limits`](super::Limits).
        limit: &'static str,
        /// Its value.
        max: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A parameter is unknown to the task, of the wrong kind or out of its range.
    #[error("{reason}")]
    Parameters {
        /// [`ErrorCode::UnknownParameter`] or [`ErrorCode::InvalidParameter`].
        code: ErrorCode,
        /// Which one, and what the task takes.
        reason: String,
    },
    /// The source itself could not be read (disk, network): nothing is wrong with the media.
    #[error("the input could not be read: {0}; try again")]
    Unreadable(#[source] io::Error),
    /// Called off by [`Progress::report`](super::Progress::report).
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl MediaError {
    /// Its stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_media",
            Self::NotMedia { .. } => "not_media",
            Self::Unsupported { .. } => "unsupported_media",
            Self::Truncated { .. } => "truncated_media",
            Self::Corrupt { .. } => "corrupt_media",
            Self::TooLong { .. } => "media_too_long",
            Self::TooLarge { .. } => "media_too_large",
            Self::Parameters { code, .. } => code.as_str(),
            Self::Unreadable(_) => "media_unreadable",
            Self::Cancelled(_) => "cancelled",
        }
    }

    /// Whether the same job may succeed when it is tried again: only where reading the source failed.
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Unreadable(_))
    }

    pub(super) fn corrupt(reason: impl Into<String>) -> Self {
        Self::Corrupt { reason: reason.into() }
    }

    pub(super) fn truncated(reason: impl Into<String>) -> Self {
        Self::Truncated { reason: reason.into() }
    }
}
