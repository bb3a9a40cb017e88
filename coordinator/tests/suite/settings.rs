//! Settings: defaults, environment, what is refused.

use coordinator::Settings;
use relay_runtime::settings::Map;

fn load(variables: &[(&str, &str)]) -> Result<Settings, String> {
    let env: Map<String, String> =
        variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let settings = Settings::load(None, env).map_err(|error| error.to_string())?;
    settings.check().map_err(|error| error.to_string())?;
    Ok(settings)
}

#[test]
fn the_defaults_can_be_used_and_bind_loopback() {
    let settings = load(&[]).unwrap();
    assert!(settings.listen.starts_with("127.0.0.1:"));
    assert!(settings.backend_entries().unwrap().is_empty());
    assert!(settings.leases.restart_wait_ms >= settings.leases.lease_ttl_ms);
    settings.kafka_settings().validate().unwrap();
}

#[test]
fn the_environment_sets_what_operators_need() {
    let settings = load(&[
        ("RELAY__LISTEN", "127.0.0.1:0"),
        ("RELAY__KAFKA__BROKERS", "k1:9092,k2:9092"),
        ("RELAY__KAFKA__CREATE_TOPICS", "false"),
        ("RELAY__BACKENDS__STATIC", "http://a:8080/, https://b;slots=3;api_key_file=/run/key"),
        ("RELAY__TOPICS__LANES", "default,slow;partitions=2"),
    ])
    .unwrap();
    assert_eq!(settings.kafka_settings().brokers, "k1:9092,k2:9092");
    assert!(!settings.kafka.create_topics);
    let backends = settings.backend_entries().unwrap();
    assert_eq!((&*backends[0].url, backends[0].slots), ("http://a:8080", 1));
    assert_eq!((&*backends[1].url, backends[1].slots), ("https://b", 3));
    assert_eq!(backends[1].api_key_file.as_deref(), Some(std::path::Path::new("/run/key")));
}

#[test]
fn what_cannot_be_used_is_refused_with_the_key() {
    for (variable, value, words) in [
        ("RELAY__LISTNE", "x", "listne"),
        ("RELAY__LEASES__LEASE_TTL_MS", "3000", "leases.lease_ttl_ms"),
        ("RELAY__LEASES__RESTART_WAIT_MS", "4999", "leases.restart_wait_ms"),
        ("RELAY__NODES__HEARTBEAT_FAST_MS", "100", "nodes.heartbeat_fast_ms"),
        ("RELAY__NODES__NODE_TIMEOUT_MS", "1000", "nodes.node_timeout_ms"),
        ("RELAY__BACKENDS__STATIC", "localhost:8080", "backends.static \"localhost:8080\""),
        ("RELAY__BACKENDS__STATIC", "http://a,http://a/", "twice"),
        ("RELAY__BACKENDS__STATIC", "http://a;slots=0", "slots must be 1 to 1024"),
        ("RELAY__BACKENDS__STATIC", "http://a;slot=2", "\"slot=2\" is not understood"),
        ("RELAY__BACKENDS__STATIC", "http://user:secret@a", "without user"),
        ("RELAY__TOPICS__LANES", "fast", "topics.lanes"),
    ] {
        let refused = load(&[(variable, value)]).expect_err(variable);
        assert!(refused.contains(words), "{variable}={value}: {refused}");
    }
}
