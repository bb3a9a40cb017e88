//! Load tests of the relay: the LocalAI simulator, benches, cluster tests.

pub mod localai_sim;
