//! The one port to the durable log, and its adapters.
//!
//! Everything above this crate talks to [`port::Log`] and never knows which engine carries it:
//! `KafkaLog` (Apache Kafka, every real deployment) or `LocalLog` (embedded, one process, nothing to install).
//! One conformance suite (`log/tests/`) holds both adapters to the behaviour that the port's documentation states.

pub mod kafka;
pub mod local;
#[doc(hidden)]
pub mod planted;
pub mod port;
