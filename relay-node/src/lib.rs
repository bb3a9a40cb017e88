//! A relay node: takes jobs in, runs them on backends, commits how they end, and brings the events back.
//!
//! Stateless: everything that must outlast the process lies in the log and in the object store. [`node::Node`] is the
//! wiring; the job's way is [`gateway::submit`] → [`intake::core`] → [`job::run`] → [`intake::lane`] → [`events::hub`].

pub mod audit;
pub mod backend;
pub mod cluster;
pub mod dlq;
pub mod doorless;
pub mod events;
pub mod fair;
#[cfg(test)]
mod fair_test;
pub mod gateway;
pub mod hidden;
pub mod intake;
pub mod job;
pub mod node;
#[doc(hidden)]
pub mod planted;
pub mod rate;
pub mod settings;
pub mod state;
pub mod tenants;
