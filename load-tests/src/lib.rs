//! Load tests of the relay: the LocalAI simulator, benches, cluster tests, checks of others against the contract.

pub mod bench;
pub mod broker;
pub mod chaos;
pub mod conformance;
pub mod localai_sim;
pub mod simulate;
