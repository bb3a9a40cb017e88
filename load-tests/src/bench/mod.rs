//! Benches: each measures the relay beside the raw limit in one run, and prints a table.

pub mod balance;
pub mod jobs;
pub mod path;
#[cfg(feature = "peers")]
mod peers;
mod process;
pub mod queued;
mod raw;
mod relay;
pub mod report;
pub mod start;
pub mod take_over;
mod timing;
