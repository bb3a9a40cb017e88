//! Bugs that are planted on purpose, to prove that the cluster simulator finds such bugs.
//!
//! Without the feature `planted-bugs` no bug can be planted: [`is_planted`] is `false` at compile time, and what depends on it is
//! not compiled in. Only the simulator's own test is built with the feature.

/// A bug that the simulator must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The log commits for whoever asks, owner or not.
    NoFence,
    /// Offsets are committed first, and results are written after that, on their own.
    OffsetsBeforeResult,
    /// Results are written first, on their own, and offsets are committed after that.
    ResultOutsideCommit,
    /// The set of jobs finished beyond the committed offset is not committed.
    LostMetadata,
    /// A job that failed is tried once more than it may be.
    OneRetryTooMany,
    /// The next attempt has the number of the one before.
    SameAttemptNumber,
    /// Attempts begin before they are registered.
    UnregisteredAttempt,
    /// Jobs begin before it is known what has ended.
    EndedNotRead,
    /// A watcher that comes back gets the last event that it has once more.
    ResumeRepeats,
    /// A watcher that comes back misses the first event after the last that it has.
    ResumeSkips,
    /// A job that comes again and was asked to be cancelled is cancelled though it has ended.
    CancelAfterCommit,
    /// A commit of unknown fate counts as done.
    DoubtIsDone,
    /// A commit of unknown fate counts as done if its offsets are there, and the offsets of an earlier owner count without its
    /// records.
    OffsetsProve,
    /// A backend gets one request more than it has slots.
    SlotTooMany,
    /// A node that no leader answers uses its slots on and on.
    LeaseNotObeyed,
    /// A node whose lease is over sends no new requests, but lets those run on that run.
    RunsOnAfterLease,
    /// A new leader lends slots at once that an earlier one may have lent.
    LeaderDoesNotWait,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NoFence,
        Self::OffsetsBeforeResult,
        Self::ResultOutsideCommit,
        Self::LostMetadata,
        Self::OneRetryTooMany,
        Self::SameAttemptNumber,
        Self::UnregisteredAttempt,
        Self::EndedNotRead,
        Self::ResumeRepeats,
        Self::ResumeSkips,
        Self::CancelAfterCommit,
        Self::DoubtIsDone,
        Self::OffsetsProve,
        Self::SlotTooMany,
        Self::LeaseNotObeyed,
        Self::RunsOnAfterLease,
        Self::LeaderDoesNotWait,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether `bug` is planted on this thread.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether `bug` is planted on this thread: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}

/// Plants a bug on this thread, or none. `false` if this build cannot.
pub fn plant(bug: Option<Bug>) -> bool {
    #[cfg(feature = "planted-bugs")]
    PLANTED.set(bug);
    cfg!(feature = "planted-bugs") || bug.is_none()
}
