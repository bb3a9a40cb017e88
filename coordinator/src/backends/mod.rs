//! The backends: a static list from the settings ([`entry`]), each watched by a task of its own ([`watch`]) that probes
//! it over HTTP ([`probe`]). A probe is a hint only; nodes judge a backend by what comes of their requests.

pub mod entry;
pub mod probe;
pub mod watch;

pub use self::entry::{BackendEntry, EntryError};
pub use self::probe::{ProbeError, Prober};

/// What a probe found: the models, sorted, or why the backend cannot be used, in words.
pub type ProbeReport = Result<Vec<String>, String>;
