//! Every error of an app has the one shape; identity as an argument of a handler.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::test::{TestRequest, call_service, init_service, read_body, read_body_json, try_call_service};
use actix_web::{App, HttpResponse, ResponseError, web};
use relay_protocol::ErrorCode;
use relay_runtime::auth::{AuthSettings, Authenticator, Scope, StaticToken, TokenHash};
use relay_runtime::http_auth::Caller;
use relay_runtime::http_error::{ApiError, json_config, not_found, path_config, query_config, shape_errors};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Body {
    n: u32,
}

/// The app that the tests ask. A macro, because an app's type cannot be named.
macro_rules! app {
    ($auth:expr) => {
        init_service(
            App::new()
                .wrap(from_fn(shape_errors))
                .app_data(json_config(64))
                .app_data(query_config())
                .app_data(path_config())
                .app_data(web::PayloadConfig::new(64))
                .app_data(web::Data::new($auth))
                .service(web::resource("/json").post(|body: web::Json<Body>| async move { body.n.to_string() }))
                .route("/query", web::get().to(|query: web::Query<Body>| async move { query.n.to_string() }))
                .service(web::resource("/path/{n}").get(|n: web::Path<u32>| async move { n.to_string() }))
                .route("/bytes", web::post().to(|body: web::Bytes| async move { body.len().to_string() }))
                .route("/form", web::post().to(|body: web::Form<Body>| async move { body.n.to_string() }))
                .route("/no-data", web::get().to(|_: web::Data<String>| async { "" }))
                .route("/plain", web::get().to(|| async { HttpResponse::build(StatusCode::BAD_GATEWAY).body("secret path /etc") }))
                .route("/empty", web::get().to(|| async { HttpResponse::build(StatusCode::IM_A_TEAPOT).finish() }))
                .route("/other-json", web::get().to(|| async { HttpResponse::BadRequest().json(serde_json::json!({"mine": 1})) }))
                .route("/foreign", web::get().to(|| async { Err::<String, _>(actix_web::error::ErrorInternalServerError("password=1")) }))
                .route("/busy", web::get().to(|| async { Err::<String, _>(ApiError::new(ErrorCode::Draining, "come back").retry_after(7)) }))
                .route("/who", web::get().to(|caller: Caller| async move { format!("{}@{}", caller.0.subject, caller.0.tenant) }))
                .route("/cancel", web::post().to(|caller: Caller| async move {
                    caller.0.require(Scope::JobsCancel)?;
                    Ok::<_, ApiError>("cancelled")
                }))
                .default_service(web::route().to(not_found)),
        )
        .await
    };
}

fn open() -> Authenticator {
    Authenticator::new(&AuthSettings::default()).unwrap()
}

/// Sends `request` and checks shape, status, code and retryability; returns message and headers.
macro_rules! refused {
    ($request:expr, $status:expr, $code:expr, $retryable:expr) => {{
        let app = app!(open());
        let response = call_service(&app, $request.to_request()).await;
        let status = response.status();
        let headers = response.headers().clone();
        assert_eq!(headers.get(header::CONTENT_TYPE).unwrap(), "application/json");
        let body: Value = read_body_json(response).await;
        assert_eq!(status.as_u16(), $status, "{body}");
        assert_eq!(body["error"]["code"], $code, "{body}");
        assert_eq!(body["error"]["retryable"], $retryable, "{body}");
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        assert_eq!(body["error"].as_object().unwrap().len(), 3, "{body}");
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        assert!(!message.is_empty());
        (message, headers)
    }};
}

fn post(path: &str, kind: &str, body: &str) -> TestRequest {
    TestRequest::post().uri(path).insert_header((header::CONTENT_TYPE, kind)).set_payload(body.to_owned())
}

#[actix_web::test]
async fn unknown_paths_and_methods() {
    let (message, _) = refused!(TestRequest::get().uri("/nowhere"), 404, "not_found", false);
    assert!(message.contains("/nowhere"));
    refused!(TestRequest::delete().uri("/nowhere"), 404, "not_found", false);
    let (message, headers) = refused!(TestRequest::get().uri("/json"), 405, "method_not_allowed", false);
    assert!(message.contains("GET /json"), "{message}");
    assert!(headers.get(header::ALLOW).is_none_or(|allow| allow == "POST"));
    refused!(TestRequest::default().method(Method::TRACE).uri("/path/1"), 405, "method_not_allowed", false);
}

#[actix_web::test]
async fn broken_json() {
    let json = "application/json";
    refused!(post("/json", json, "{"), 400, "bad_request", false);
    let (message, _) = refused!(post("/json", json, "{\"n\":-1}"), 400, "bad_request", false);
    assert!(message.contains("u32"), "{message}");
    refused!(post("/json", json, ""), 400, "bad_request", false);
    refused!(post("/json", "text/plain", "{\"n\":1}"), 415, "bad_request", false);
    let large = format!("{{\"n\":1,\"x\":\"{}\"}}", "y".repeat(80));
    let (message, _) = refused!(post("/json", json, &large), 413, "too_large", false);
    assert!(message.contains("64 bytes"), "{message}");
}

#[actix_web::test]
async fn broken_query_path_bytes_and_form() {
    refused!(TestRequest::get().uri("/query?n=x"), 400, "bad_request", false);
    refused!(TestRequest::get().uri("/query"), 400, "bad_request", false);
    refused!(TestRequest::get().uri("/path/x"), 404, "not_found", false);
    refused!(TestRequest::get().uri("/path/%ff"), 404, "not_found", false);
    refused!(post("/bytes", "application/octet-stream", &"y".repeat(65)), 413, "too_large", false);
    refused!(post("/form", "application/x-www-form-urlencoded", "n=x"), 400, "bad_request", false);
}

#[actix_web::test]
async fn faults_of_the_server_tell_nothing_about_it() {
    let (message, _) = refused!(TestRequest::get().uri("/foreign"), 500, "internal", true);
    assert!(!message.contains("password"), "{message}");
    refused!(TestRequest::get().uri("/no-data"), 500, "internal", true);
    let (message, _) = refused!(TestRequest::get().uri("/plain"), 502, "bad_gateway", true);
    assert!(!message.contains("secret"), "{message}");
    refused!(TestRequest::get().uri("/empty"), 418, "i_m_a_teapot", false);
}

#[actix_web::test]
async fn an_error_of_an_inner_middleware_gets_the_shape_too() {
    for (inner, status, code) in [
        (actix_web::error::ErrorForbidden("x"), 403, "forbidden"),
        (ApiError::new(ErrorCode::Draining, "x").into(), 503, "draining"),
    ] {
        let inner = std::cell::RefCell::new(Some(inner));
        let fail = move |_: ServiceRequest, _: Next<BoxBody>| {
            let error = inner.borrow_mut().take().unwrap();
            async { Err::<ServiceResponse<BoxBody>, _>(error) }
        };
        let app = init_service(App::new().wrap(from_fn(fail)).wrap(from_fn(shape_errors))).await;
        let error = try_call_service(&app, TestRequest::get().to_request()).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(response.status().as_u16(), status);
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["code"], code);
    }
}

#[actix_web::test]
async fn a_retry_is_announced() {
    let (message, headers) = refused!(TestRequest::get().uri("/busy"), 503, "draining", true);
    assert_eq!(message, "come back");
    assert_eq!(headers.get(header::RETRY_AFTER).unwrap(), "7");
}

#[actix_web::test]
async fn what_is_fine_or_json_already_passes_unchanged() {
    let app = app!(open());
    let response = call_service(&app, post("/json", "application/json", "{\"n\":5}").to_request()).await;
    assert_eq!((response.status(), read_body(response).await.as_ref()), (StatusCode::OK, &b"5"[..]));
    let response = call_service(&app, TestRequest::get().uri("/other-json").to_request()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(read_body(response).await.as_ref(), b"{\"mine\":1}");
}

#[actix_web::test]
async fn every_code_of_the_protocol_has_a_valid_response() {
    for &code in ErrorCode::ALL {
        let error = ApiError::new(code, "x".repeat(5_000) + "é");
        let response = error.error_response();
        assert_eq!(response.status().as_u16(), code.http_status(), "{code}");
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], code.as_str());
        assert_eq!(body["error"]["message"].as_str().unwrap().len(), 2_048, "long messages are cut");
    }
}

#[actix_web::test]
async fn a_long_message_is_cut_between_characters() {
    let response = ApiError::new(ErrorCode::BadRequest, "é".repeat(2_000) + "x").error_response();
    let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["message"].as_str().unwrap().chars().count(), 1_024);
    let odd = ApiError::new(ErrorCode::BadRequest, "x".to_owned() + &"é".repeat(2_000)).error_response();
    let body = actix_web::body::to_bytes(odd.into_body()).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["message"].as_str().unwrap().len(), 2_047);
}

fn guarded() -> Authenticator {
    let scopes = [Scope::JobsRead].into_iter().collect();
    let token = StaticToken { subject: "ann".into(), tenant: "red".into(), scopes, sha256: TokenHash::of("t0k3n") };
    Authenticator::new(&AuthSettings { tokens: vec![token], jwt: None }).unwrap()
}

#[actix_web::test]
async fn a_caller_is_known_before_the_handler_runs() {
    let app = app!(guarded());
    let ask = |header: Option<&'static str>| {
        let request = TestRequest::get().uri("/who");
        match header {
            Some(value) => request.insert_header((header::AUTHORIZATION, value)).to_request(),
            None => request.to_request(),
        }
    };
    let response = call_service(&app, ask(Some("Bearer t0k3n"))).await;
    assert_eq!(read_body(response).await.as_ref(), b"ann@red");
    for header in [None, Some("Bearer wrong"), Some("Basic t0k3n"), Some("Bearer"), Some("Bearer t\u{e9}")] {
        let response = call_service(&app, ask(header)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{header:?}");
        assert_eq!(response.headers().get(header::WWW_AUTHENTICATE).unwrap(), "Bearer");
        let body: Value = read_body_json(response).await;
        assert_eq!(body["error"]["code"], "unauthenticated");
    }
    let twice = TestRequest::get()
        .uri("/who")
        .append_header((header::AUTHORIZATION, "Bearer t0k3n"))
        .append_header((header::AUTHORIZATION, "Bearer other"));
    assert_eq!(call_service(&app, twice.to_request()).await.status(), StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_missing_scope_is_named() {
    let app = app!(guarded());
    let request = TestRequest::post().uri("/cancel").insert_header((header::AUTHORIZATION, "Bearer t0k3n"));
    let response = call_service(&app, request.to_request()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body: Value = read_body_json(response).await;
    assert_eq!(body["error"]["code"], "forbidden");
    assert!(body["error"]["message"].as_str().unwrap().contains("jobs:cancel"));
}

#[actix_web::test]
async fn without_tokens_no_header_is_wrong() {
    let app = app!(open());
    for header in ["", "Basic YTpi", "Bearer sk-anything", "Bearer a b"] {
        let request = TestRequest::post().uri("/cancel").insert_header((header::AUTHORIZATION, header));
        assert_eq!(
            read_body(call_service(&app, request.to_request()).await).await.as_ref(),
            b"cancelled",
            "{header:?}"
        );
    }
}

#[actix_web::test]
async fn over_a_real_socket_head_and_oversized_bodies_keep_the_shape() {
    use std::io::{Read, Write};
    let server = actix_test();
    let ask = move |text: String| {
        let mut socket = std::net::TcpStream::connect(server).unwrap();
        socket.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let (head, get) = web::block(move || {
        let line = |method| format!("{method} /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        (ask(line("HEAD")), ask(line("GET")))
    })
    .await
    .unwrap();
    assert!(head.starts_with("HTTP/1.1 404") && head.ends_with("\r\n\r\n"), "{head}");
    let (headers, body) = get.split_once("\r\n\r\n").unwrap();
    assert!(headers.contains(&format!("content-length: {}", body.len())), "{get}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["error"]["code"], "not_found");
}

/// A server on a free port; it ends with the test's runtime.
fn actix_test() -> std::net::SocketAddr {
    let app = || App::new().wrap(from_fn(shape_errors));
    let server = actix_web::HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    address
}
