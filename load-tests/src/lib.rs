//! Load tests of the relay: the LocalAI simulator, benches, cluster tests.
