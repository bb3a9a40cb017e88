//! The HTTP server of a node: its addresses, its limits.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::{App, HttpServer, middleware, web};
use relay_runtime::auth::Authenticator;
use relay_runtime::http_trace::request_spans;
use relay_runtime::metrics::Metrics;
use relay_runtime::{http_error, ops_http};

use super::{connect, denials, dlq, jobs, openai, proxy, retry, uploads, view};
use crate::state::NodeState;

/// Time to send the head of a request; slower clients are cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that an idle connection is kept for another request.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Time that connections may take to end when the server stops, in seconds.
const SHUTDOWN_S: u64 = 5;
/// Largest JSON body of an address without a limit of its own, in bytes.
const JSON_BYTES_MAX: usize = 65_536;

/// Serves on `listeners` until it is stopped by its handle.
///
/// # Errors
/// A socket cannot be used.
pub fn start(
    node: web::Data<NodeState>,
    auth: Authenticator,
    metrics: Metrics,
    listeners: Vec<TcpListener>,
) -> std::io::Result<actix_web::dev::Server> {
    let gateway = node.settings.gateway.clone();
    let auth = web::Data::new(auth);
    let readiness = node.readiness.clone();
    let calls = web::Data::new(openai::Calls::new(&node.settings.openai));
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(node.clone())
            .app_data(auth.clone())
            .app_data(calls.clone())
            .app_data(http_error::json_config(JSON_BYTES_MAX))
            .app_data(http_error::query_config())
            .app_data(http_error::path_config())
            .wrap(middleware::from_fn(denials::audit))
            .wrap(middleware::from_fn(http_error::shape_errors))
            .wrap(request_spans())
            .configure(ops_http::configure(readiness.clone(), metrics.clone()))
            .service(web::resource("/v1/connect").route(web::get().to(connect::connect)))
            .configure(retry::configure)
            .configure(view::configure)
            .configure(jobs::configure)
            .configure(dlq::configure)
            .configure(uploads::configure)
            .configure(openai::configure)
            .configure(proxy::configure)
            .default_service(web::to(http_error::not_found))
    })
    .workers(gateway.threads)
    // Events are small and come one by one: none waits for the acknowledgement of the one before.
    .tcp_nodelay(true)
    // A client that goes away ends its call, also at the backend.
    .h1_allow_half_closed(false)
    .max_connections(gateway.connections_max)
    .client_request_timeout(HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(SHUTDOWN_S)
    .disable_signals();
    for listener in listeners {
        server = server.listen(listener)?;
    }
    Ok(server.run())
}
