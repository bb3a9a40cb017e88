//! Probes against small HTTP servers that answer like LocalAI, or badly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use coordinator::backends::{BackendEntry, ProbeError, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{beat, get, heartbeat, settings, start, until};

type Answers = Arc<dyn Fn(&HttpRequest) -> HttpResponse + Send + Sync>;

/// A server on a free port that answers each request by `answers`; its URL.
fn serve(answers: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static) -> String {
    let answers: Answers = Arc::new(answers);
    let app = move || {
        let answers = answers.clone();
        let answer = move |request: HttpRequest| std::future::ready(answers(&request));
        App::new().default_service(web::to(answer))
    };
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    url
}

/// As LocalAI answers: `/readyz` empty, the models in random order.
fn localai(request: &HttpRequest) -> HttpResponse {
    match request.path() {
        "/readyz" => HttpResponse::Ok().finish(),
        "/v1/models" => {
            let body =
                r#"{"object":"list","data":[{"id":"whisper-1","object":"model"},{"id":"lab-chat","object":"model"}]}"#;
            HttpResponse::Ok().content_type("application/json").body(body)
        }
        path => panic!("{path} must not be asked"),
    }
}

async fn probe_entry(entry: BackendEntry) -> Result<Vec<String>, ProbeError> {
    relay_runtime::tls::install_provider();
    let prober = Prober::new(Duration::from_millis(500)).unwrap();
    prober.probe(&entry, &prober.reach(&entry)?).await
}

async fn probe(url: &str) -> Result<Vec<String>, ProbeError> {
    probe_entry(BackendEntry { url: url.into(), via: None, slots: 1, api_key_file: None }).await
}

#[actix_web::test]
async fn models_come_sorted() {
    assert_eq!(probe(&serve(localai)).await.unwrap(), ["lab-chat", "whisper-1"]);
}

#[actix_web::test]
async fn a_server_without_readyz_is_judged_by_its_models() {
    let url = serve(|request| match request.path() {
        "/readyz" => HttpResponse::NotFound().finish(),
        _ => localai(request),
    });
    assert_eq!(probe(&url).await.unwrap().len(), 2);
}

#[actix_web::test]
async fn one_that_is_not_ready_or_has_no_models_is_not_usable() {
    let not_ready = serve(|request| match request.path() {
        "/readyz" => HttpResponse::ServiceUnavailable().finish(),
        _ => localai(request),
    });
    assert_eq!(probe(&not_ready).await, Err(ProbeError::NotReady { path: "/readyz", status: 503 }));
    let no_models = serve(|request| match request.path() {
        "/readyz" => HttpResponse::Ok().finish(),
        _ => HttpResponse::build(StatusCode::INTERNAL_SERVER_ERROR).body("boom"),
    });
    assert_eq!(probe(&no_models).await, Err(ProbeError::NotReady { path: "/v1/models", status: 500 }));
    for body in ["<html>", "[]", r#"{"data":[{"name":"x"}]}"#] {
        let other = serve(move |_| HttpResponse::Ok().body(body));
        assert!(matches!(probe(&other).await, Err(ProbeError::Invalid(_))), "{body}");
    }
    let endless = serve(|request| match request.path() {
        "/readyz" => HttpResponse::Ok().finish(),
        _ => HttpResponse::Ok().body("x".repeat(2 << 20)),
    });
    assert!(matches!(probe(&endless).await, Err(ProbeError::Invalid(reason)) if reason.contains("larger than")));
}

#[actix_web::test]
async fn a_key_is_sent_and_a_missing_one_is_named() {
    let url = serve(|request| match request.headers().get("authorization").map(|key| key.as_bytes()) {
        Some(b"Bearer sk-lab") => localai(request),
        _ if request.path() == "/readyz" => HttpResponse::Ok().finish(),
        _ => HttpResponse::Unauthorized().finish(),
    });
    let error = probe(&url).await.unwrap_err();
    assert_eq!(error, ProbeError::Unauthorized { path: "/v1/models", status: 401 });
    assert!(error.to_string().contains("api_key_file"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "sk-lab\n").unwrap();
    let with_key = |file: &std::path::Path| BackendEntry {
        url: url.as_str().into(),
        via: None,
        slots: 1,
        api_key_file: Some(file.to_path_buf()),
    };
    assert_eq!(probe_entry(with_key(&file)).await.unwrap().len(), 2);
    for text in ["", "two words", "sk\nlab"] {
        std::fs::write(&file, text).unwrap();
        assert!(matches!(probe_entry(with_key(&file)).await, Err(ProbeError::KeyFile { .. })), "{text:?}");
    }
    assert!(matches!(probe_entry(with_key(&folder.path().join("none"))).await, Err(ProbeError::KeyFile { .. })));
}

#[actix_web::test]
async fn silence_a_closed_port_and_drips_end_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    assert_eq!(probe(&silent).await, Err(ProbeError::TimedOut { path: "/readyz", timeout_ms: 500 }));
    drop(listener);
    assert!(matches!(probe(&silent).await, Err(ProbeError::Unreachable { path: "/readyz", .. })));

    let dripping = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", dripping.local_addr().unwrap());
    let drip = tokio::spawn(async move {
        let (mut socket, _) = dripping.accept().await.unwrap();
        let mut request = [0; 4_096];
        _ = socket.read(&mut request).await;
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n".iter().cycle() {
            if socket.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(matches!(probe(&url).await, Err(ProbeError::TimedOut { .. })));
    drip.abort();
}

#[actix_web::test]
async fn a_coordinator_follows_a_backend_down_and_up_and_grants_by_it() {
    let up = Arc::new(AtomicBool::new(true));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (switch, paths) = (up.clone(), seen.clone());
    let url = serve(move |request| {
        paths.lock().unwrap().push(request.path().to_owned());
        if switch.load(Ordering::SeqCst) { localai(request) } else { HttpResponse::ServiceUnavailable().finish() }
    });
    let mut settings = settings();
    settings.backends.entries = vec![format!("{url};slots=2")];
    let coordinator = start(settings).await;
    let backend = |coordinator| async move { get(coordinator, "/v1/backends").await.1["backends"][0].clone() };
    let first = until("healthy", || backend(&coordinator), |shown| shown["healthy"] == true).await;
    assert_eq!(first["models"], serde_json::json!(["lab-chat", "whisper-1"]));
    assert_eq!(first["url"], url);
    assert_eq!(beat(&coordinator, &heartbeat("a", 1)).await.1["grants"][0]["slots"], 2);
    up.store(false, Ordering::SeqCst);
    // On a busy machine a probe before that one may have timed out.
    let is_503 = |shown: &serde_json::Value| shown["reason"] == "/readyz answered 503";
    let down = until("unhealthy", || backend(&coordinator), is_503).await;
    assert_eq!(down["healthy"], false);
    assert_eq!(beat(&coordinator, &heartbeat("a", 1)).await.1["grants"], serde_json::json!([]));
    up.store(true, Ordering::SeqCst);
    until("healthy again", || backend(&coordinator), |shown| shown["healthy"] == true).await;
    coordinator.stop().await;
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|path| path == "/readyz" || path == "/v1/models"), "{seen:?}");
}
