//! The commands that an operator runs.

use super::*;
use crate::port::Topic;

#[test]
fn each_topic_has_a_command_with_all_that_matters() {
    let spec = |name, retention| TopicSpec { name: Topic::from(name), partitions: 12, retention };
    let specs = [
        spec("media.jobs.default", Retention::Forever),
        spec("media.events", Retention::Age(Duration::from_secs(3_600))),
        spec("media.nodes", Retention::Compact),
    ];
    let settings = KafkaSettings { brokers: "k1:9092,k2:9092".to_owned(), ..KafkaSettings::default() };
    let commands = kafka_topics_commands(&specs, &settings);
    let start = "kafka-topics.sh --bootstrap-server k1:9092,k2:9092 --create --if-not-exists --topic media.jobs.default \
                 --partitions 12 --replication-factor 3";
    assert!(commands[0].starts_with(start), "{}", commands[0]);
    assert!(
        commands[0].contains(" --config retention.ms=-1") && commands[0].contains(" --config min.insync.replicas=2")
    );
    assert!(commands[1].contains(" --config retention.ms=3600000"));
    assert!(commands[2].contains(" --config cleanup.policy=compact"));
    assert!(commands.iter().all(|command| command.contains(" --config max.message.bytes=1300000")));
}

#[test]
fn a_secured_cluster_needs_credentials() {
    let mut settings = KafkaSettings::default();
    settings.extra.insert("security.protocol".to_owned(), "SSL".to_owned());
    let spec = TopicSpec { name: Topic::from("t"), partitions: 1, retention: Retention::Compact };
    assert!(kafka_topics_commands(&[spec], &settings)[0].contains(" --command-config client.properties --create"));
}
