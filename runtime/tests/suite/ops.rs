//! `/healthz`, `/readyz`, `/metrics` over real HTTP handlers, and the readiness behind them.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body, read_body_json};
use actix_web::{App, HttpResponse, web};
use relay_runtime::metrics::{self, CONTENT_TYPE};
use relay_runtime::ops_http::{Readiness, configure};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;

async fn ask(readiness: &Readiness, path: &str) -> (StatusCode, Value) {
    let app = App::new().configure(configure(readiness.clone(), metrics::install().unwrap()));
    let app = init_service(app).await;
    let response = call_service(&app, TestRequest::get().uri(path).to_request()).await;
    (response.status(), read_body_json(response).await)
}

#[actix_web::test]
async fn a_process_starts_unready_but_alive() {
    let readiness = Readiness::starting();
    assert_eq!(ask(&readiness, "/healthz").await.0, StatusCode::OK);
    let (status, body) = ask(&readiness, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({"ready": false, "reasons": [{"code": "starting", "message": "the process is starting"}]});
    assert_eq!(body, expected);
}

#[actix_web::test]
async fn reasons_come_and_go() {
    let readiness = Readiness::default();
    readiness.block("kafka", "cannot reach broker:9092");
    readiness.block("backend", "none");
    readiness.block("kafka", "cannot reach broker:9093");
    readiness.clear("starting");
    readiness.clear("never set");
    let (status, body) = ask(&readiness, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let reasons =
        json!([{"code": "backend", "message": "none"}, {"code": "kafka", "message": "cannot reach broker:9093"}]);
    assert_eq!(body["reasons"], reasons);
    assert!(!readiness.is_ready());

    readiness.clone().clear("kafka");
    readiness.clear("backend");
    assert!(readiness.is_ready());
    assert_eq!(ask(&readiness, "/readyz").await, (StatusCode::OK, json!({"ready": true, "reasons": []})));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_last_reason_is_gone() {
    let readiness = Readiness::starting();
    readiness.block("kafka", "x");
    readiness.clear("starting");
    assert!(timeout(Duration::from_secs(9), readiness.wait_ready()).await.is_err(), "kafka is still in the way");
    let waiter = tokio::spawn({
        let readiness = readiness.clone();
        async move { readiness.wait_ready().await }
    });
    readiness.clear("kafka");
    timeout(PATIENCE, waiter).await.unwrap().unwrap();
    timeout(PATIENCE, readiness.wait_ready()).await.unwrap();
}

#[actix_web::test]
async fn metrics_are_rendered_with_fixed_buckets_and_the_process_figures() {
    let metrics = metrics::install().unwrap();
    ::metrics::histogram!("test_ops_wait_seconds").record(0.003);
    ::metrics::histogram!("test_ops_body_bytes").record(5_000.0);
    ::metrics::counter!("test_ops_total", "kind" => "a").increment(3);
    let app = App::new().configure(configure(Readiness::starting(), metrics));
    let app = init_service(app.route("/other", web::get().to(HttpResponse::Ok))).await;
    let response = call_service(&app, TestRequest::get().uri("/metrics").to_request()).await;
    assert_eq!(response.headers().get("content-type").unwrap(), CONTENT_TYPE);
    let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
    for line in [
        "test_ops_total{kind=\"a\"} 3",
        "test_ops_wait_seconds_bucket{le=\"0.002\"} 0",
        "test_ops_wait_seconds_bucket{le=\"0.005\"} 1",
        "test_ops_wait_seconds_bucket{le=\"+Inf\"} 1",
        "test_ops_body_bytes_bucket{le=\"4096\"} 0",
        "test_ops_body_bytes_bucket{le=\"16384\"} 1",
        "# TYPE process_cpu_seconds_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!((1e6..1e10).contains(&value("process_resident_memory_bytes")));
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}

#[actix_web::test]
async fn the_recorder_is_installed_once() {
    let (one, two) = (metrics::install().unwrap(), metrics::install().unwrap());
    ::metrics::counter!("test_ops_once_total").increment(1);
    for metrics in [one, two] {
        assert!(metrics.render().contains("test_ops_once_total 1"));
    }
}

#[tokio::test]
async fn upkeep_ends_with_the_process() {
    let shutdown = CancellationToken::new();
    let upkeep = tokio::spawn(metrics::install().unwrap().upkeep(shutdown.clone()));
    tokio::task::yield_now().await;
    assert!(!upkeep.is_finished());
    shutdown.cancel();
    timeout(PATIENCE, upkeep).await.unwrap().unwrap();
}
