//! What tests do with a simulator while it runs: read its counters, kill a worker, make it unready.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use serde::Deserialize;

use super::super::State;

/// Which model.
#[derive(Deserialize)]
pub(super) struct Which {
    model: String,
}

/// What `/readyz` should say.
#[derive(Deserialize)]
pub(super) struct Ready {
    ready: bool,
}

/// `GET /readyz`.
pub(super) async fn ready(state: web::Data<State>) -> HttpResponse {
    if state.ready.load(Ordering::SeqCst) {
        HttpResponse::Ok().finish()
    } else {
        HttpResponse::ServiceUnavailable().finish()
    }
}

/// `GET /simulator/counters`.
pub(super) async fn counters(state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(state.counters())
}

/// `POST /simulator/kill?model=M`.
pub(super) async fn kill(state: web::Data<State>, which: web::Query<Which>) -> HttpResponse {
    match state.models.get(&which.model).is_some_and(|model| model.kill()) {
        true => HttpResponse::NoContent().finish(),
        false => HttpResponse::NotFound().finish(),
    }
}

/// `POST /simulator/ready?ready=false`.
pub(super) async fn set_ready(state: web::Data<State>, wanted: web::Query<Ready>) -> HttpResponse {
    state.ready.store(wanted.ready, Ordering::SeqCst);
    HttpResponse::NoContent().finish()
}
