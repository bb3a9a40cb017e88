//! What lets a request to a model in: the server's limit, the chat limit of a model, and its body.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::web;
use serde_json::Value;

use super::super::State;
use super::super::failure::Failure;
use super::super::model::{Model, Turn, Visit};

/// A request that was let in; it counts until it is dropped.
pub(super) struct Admitted {
    visit: Visit,
    state: web::Data<State>,
}

impl Admitted {
    /// Lets a request to `model` in, up to the server's `concurrent_requests_max`.
    pub(super) fn enter(state: &web::Data<State>, model: &Arc<Model>) -> Result<Self, Failure> {
        let max = state.settings.concurrent_requests_max;
        let before = state.busy.fetch_add(1, Ordering::SeqCst);
        let admitted = Self { visit: model.visit(), state: state.clone() };
        if max > 0 && before >= max {
            return admitted.refuse(Failure::capacity(max));
        }
        Ok(admitted)
    }

    /// As [`Admitted::enter`], also up to the model's own limit, which only chat heeds.
    pub(super) fn enter_chat(state: &web::Data<State>, model: &Arc<Model>) -> Result<Self, Failure> {
        let max = model.settings.admitted_max;
        let admitted = Self::enter(state, model)?;
        if max > 0 && model.counters().in_flight > max {
            return admitted.refuse(Failure::admission(&model.settings.id, max));
        }
        Ok(admitted)
    }

    fn refuse(mut self, failure: Failure) -> Result<Self, Failure> {
        self.ended(Err(failure))?;
        Ok(self)
    }

    /// Waits for the model and a worker of it.
    pub(super) async fn turn(&mut self, units: f64) -> Result<Turn, Failure> {
        self.visit.turn(units, &self.state.ending).await
    }

    /// Does all the work for `units` of input at once; that is the end of the request.
    pub(super) async fn do_all(mut self, units: f64) -> Result<(), Failure> {
        let work = async { self.turn(units).await?.do_share(1.0).await };
        let outcome = work.await;
        self.ended(outcome)
    }

    /// Counts how the request ended. One that is dropped before counts as cancelled.
    pub(super) fn ended<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        self.visit.end(&outcome);
        outcome
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.state.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A JSON body.
pub(super) fn json(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Failure::bad_json("unexpected EOF, internal=unexpected EOF"),
        _ => Failure::bad_json(&error.to_string()),
    })
}

/// A text field of a body.
pub(super) fn text<'a>(body: &'a Value, field: &str) -> Option<&'a str> {
    body.get(field).and_then(Value::as_str)
}
