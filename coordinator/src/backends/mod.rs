//! The backends: a list from the settings ([`entry`]), what DNS names lead to ([`discovery`]), and what operators ordered
//! ([`drains`]). Each is watched by a task of its own ([`watch`]) that probes it over HTTP ([`probe`]). A probe is a hint
//! only; nodes judge a backend by what comes of their requests.

pub mod discovery;
pub mod drains;
pub mod entry;
pub mod probe;
pub mod roster;
pub mod watch;

pub use self::entry::{BackendEntry, DnsEntry, EntryDefaults, EntryError};
pub use self::probe::{ProbeError, Prober};

/// What a probe found: the models, sorted, or why the backend cannot be used, in words.
pub type ProbeReport = Result<Vec<String>, String>;
