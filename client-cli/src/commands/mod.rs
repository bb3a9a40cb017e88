//! One module per command of the CLI.

pub(crate) mod backends;
pub(crate) mod cancel;
pub(crate) mod cluster;
pub(crate) mod dlq;
pub(crate) mod fetch;
mod http;
pub(crate) mod jobs;
mod result;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod watch;
