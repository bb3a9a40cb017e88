//! Load tests of the relay: the LocalAI simulator, benches, cluster tests.

pub mod bench;
pub mod broker;
pub mod chaos;
pub mod localai_sim;
