//! A client that stops reading gives the backend's slot back.

use std::net::TcpListener;

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, PATIENCE};

/// Pieces of an answer that no socket's buffers hold.
const PIECES: usize = 1_024;

/// A server with one model that says more than the sockets in between can hold.
fn talkative() -> anyhow::Result<(String, actix_web::dev::ServerHandle)> {
    async fn models() -> HttpResponse {
        HttpResponse::Ok().json(json!({ "object": "list", "data": [{ "id": "tts-1", "object": "model" }] }))
    }
    async fn speech() -> HttpResponse {
        let piece = Bytes::from(vec![7; 65_536]);
        HttpResponse::Ok()
            .content_type("audio/wav")
            .streaming(stream::iter((0..PIECES).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = HttpServer::new(|| {
        App::new()
            .route("/readyz", web::get().to(HttpResponse::Ok))
            .route("/v1/models", web::get().to(models))
            .route("/v1/audio/speech", web::post().to(speech))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok((url, handle))
}

#[actix_rt::test]
async fn a_client_that_stops_reading_gives_the_slot_back() -> anyhow::Result<()> {
    relay_runtime::tls::install_provider();
    let (url, backend) = talkative()?;
    let env = [("RELAY__OPENAI__CLIENT_TIMEOUT_MS", "300")];
    let cluster = Cluster::of_urls(vec![format!("{url};slots=1")], &env).await?;
    let asked = json!({ "model": "tts-1", "input": "on and on" });
    let body = asked.to_string();
    let mut slow = tokio::net::TcpStream::connect(cluster.relay.url().trim_start_matches("http://")).await?;
    let head = format!(
        "POST /v1/audio/speech HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut begin = [0; 12];
    slow.read_exact(&mut begin).await?;
    assert_eq!(&begin, b"HTTP/1.1 200");
    // It holds the only slot, and reads no more.
    let next = cluster.post("/v1/audio/speech", &asked);
    let answer = tokio::time::timeout(PATIENCE, next).await??;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await?.len(), PIECES * 65_536, "whoever reads gets all of it");
    cluster.stop().await;
    backend.stop(false).await;
    Ok(())
}
