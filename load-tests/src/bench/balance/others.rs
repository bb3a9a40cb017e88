//! Other projects' balancers, as their experts set them for servers with few workers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::json;

use super::backend::MODEL;
use crate::broker::repository;

/// HAProxy: never more at a backend than its slots, the first that has one free.
pub(super) fn haproxy(folder: &Path, port: u16, backends: &[&str], slots: usize) -> anyhow::Result<Child> {
    let mut text = format!(
        "global\n  maxconn 4000\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  \
         timeout server 120s\n  timeout queue 120s\n  retries 2\n  retry-on all-retryable-errors\n  option redispatch 1\n\
         listen front\n  bind 127.0.0.1:{port}\n  balance first\n  option httpchk GET /readyz\n"
    );
    for (at, backend) in backends.iter().enumerate() {
        writeln!(text, "  server s{at} {backend} maxconn {slots} check inter 500 fall 2 rise 1")?;
    }
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    spawn(Command::new("haproxy").arg("-f").arg(&file).arg("-db"))
}

/// nginx: the backend with the fewest connections.
pub(super) fn nginx(folder: &Path, port: u16, backends: &[&str]) -> anyhow::Result<Child> {
    let mut servers = String::new();
    for backend in backends {
        writeln!(servers, "server {backend} max_fails=1 fail_timeout=10s;")?;
    }
    let folder = folder.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 4000; }}\nhttp {{\n access_log off; client_body_temp_path {folder}/body; \
         proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n \
         upstream pool {{ zone pool 64k; least_conn; {servers} keepalive 64; keepalive_requests 10000000; }}\n \
         server {{ listen 127.0.0.1:{port}; keepalive_requests 10000000; \
         location / {{ proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_next_upstream error timeout http_500 non_idempotent; proxy_read_timeout 120s; }} }} }}\n"
    );
    let file = Path::new(&folder.to_string()).join("nginx.conf");
    std::fs::write(&file, text)?;
    spawn(Command::new("nginx").arg("-c").arg(&file))
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} is not installed: scripts/bench-peers.sh"))
}

/// Envoy: least request over active health checks and ejection of outliers.
pub(super) fn envoy(folder: &Path, port: u16, backends: &[&str]) -> anyhow::Result<Child> {
    let endpoints: Vec<_> = backends
        .iter()
        .filter_map(|backend| backend.rsplit_once(':'))
        .map(|(host, port)| {
            let address = json!({ "address": host, "port_value": port.parse::<u16>().unwrap_or_default() });
            json!({ "endpoint": { "address": { "socket_address": address } } })
        })
        .collect();
    let manager =
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let thresholds =
        json!([{ "max_connections": 4000, "max_pending_requests": 4000, "max_requests": 4000, "max_retries": 400 }]);
    let route = json!({ "cluster": "pool", "timeout": "120s",
        "retry_policy": { "retry_on": "5xx,reset,connect-failure", "num_retries": 2,
            "retry_host_predicate": [{ "name": "envoy.retry_host_predicates.previous_hosts", "typed_config":
                { "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" } }] } });
    let config = json!({ "static_resources": {
        "listeners": [{
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
                "@type": manager, "stat_prefix": "in",
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": router } }],
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": route }] }] } } }] }],
        }],
        "clusters": [{
            "name": "pool", "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s",
            "circuit_breakers": { "thresholds": thresholds },
            "outlier_detection": { "consecutive_5xx": 3, "base_ejection_time": "10s" },
            "health_checks": [{ "timeout": "1s", "interval": "0.5s", "unhealthy_threshold": 2, "healthy_threshold": 1,
                "http_health_check": { "path": "/readyz" } }],
            "load_assignment": { "cluster_name": "pool", "endpoints": [{ "lb_endpoints": endpoints }] },
        }],
    } });
    // JSON is YAML.
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, config.to_string())?;
    let options = ["--concurrency", "2", "--log-level", "off", "--use-dynamic-base-id"];
    spawn(Command::new(installed("envoy/bin/envoy")).arg("-c").arg(&file).args(options))
}

/// `LiteLLM`'s proxy: the least busy backend, two retries.
pub(super) fn litellm(folder: &Path, port: u16, backends: &[String]) -> anyhow::Result<Child> {
    let models: Vec<_> = backends
        .iter()
        .map(|backend| {
            let at =
                json!({ "model": format!("openai/{MODEL}"), "api_base": format!("{backend}/v1"), "api_key": "none" });
            json!({ "model_name": MODEL, "litellm_params": at, "model_info": { "mode": "audio_transcription" } })
        })
        .collect();
    let router = json!({ "routing_strategy": "least-busy", "num_retries": 2, "allowed_fails": 2, "cooldown_time": 10 });
    let file = folder.join("litellm.yaml");
    std::fs::write(&file, json!({ "model_list": models, "router_settings": router }).to_string())?;
    let mut command = Command::new(installed("litellm/bin/litellm"));
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").arg("--config").arg(&file);
    spawn(command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--telemetry", "False"]))
}

/// A program of `scripts/bench-peers.sh`.
fn installed(path: &str) -> PathBuf {
    let cache = std::env::var_os("RELAY_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from);
    cache.join("bench-peers").join(path)
}
