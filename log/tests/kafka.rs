//! The log on a real Kafka broker, named by `KAFKA_BOOTSTRAP`. Without one every test here fails and says how to start one.

#[path = "kafka/commits.rs"]
mod commits;
#[path = "kafka/ends.rs"]
mod ends;
#[path = "kafka/outages.rs"]
mod outages;
#[path = "kafka/support.rs"]
mod support;
#[path = "kafka/zombies.rs"]
mod zombies;
