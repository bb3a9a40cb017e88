//! Who may call what: extractors that stand first in a handler's arguments, so that they decide before the body is read.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use relay_runtime::auth::{Identity, Scope};
use relay_runtime::http_auth::authenticate;
use relay_runtime::http_error::ApiError;

use super::Api;
use crate::registry::core::Sender;

/// A caller with the scope `cluster:node`.
pub(super) struct NodeCaller(pub(super) Identity);

/// A caller with the scope `cluster:read`.
pub(super) struct ReadCaller(pub(super) Identity);

/// A caller that may see jobs: with the scope `jobs:read`, or a node that asks for one.
pub(super) struct JobsCaller(pub(super) Identity);

/// A caller that may cancel jobs: with the scope `jobs:cancel`, or a node that asks for one.
pub(super) struct CancelCaller(pub(super) Identity);

/// A caller that may order backends about: with the scope `admin`, or a node that asks for one.
pub(super) struct AdminCaller(pub(super) Identity);

impl FromRequest for AdminCaller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow_or_node(request, Scope::Admin).map(Self))
    }
}

impl FromRequest for JobsCaller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow_or_node(request, Scope::JobsRead).map(Self))
    }
}

impl FromRequest for CancelCaller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow_or_node(request, Scope::JobsCancel).map(Self))
    }
}

impl FromRequest for NodeCaller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow(request, Scope::ClusterNode).map(Self))
    }
}

impl FromRequest for ReadCaller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(allow(request, Scope::ClusterRead).map(Self))
    }
}

/// The caller, if it has `scope` or is a node; a denial goes to the audit trail.
fn allow_or_node(request: &HttpRequest, scope: Scope) -> Result<Identity, ApiError> {
    let is_node = |identity: &Identity| identity.scopes.contains(Scope::ClusterNode);
    match authenticate(request) {
        Ok(identity) if is_node(&identity) => Ok(identity),
        _ => allow(request, scope),
    }
}

/// The caller, if it has `scope`; a denial goes to the audit trail.
fn allow(request: &HttpRequest, scope: Scope) -> Result<Identity, ApiError> {
    let deny = |by: Sender, error: ApiError| {
        if let Some(api) = request.app_data::<web::Data<Api>>() {
            api.audit.denied(by, request.path(), &error.code);
        }
        error
    };
    let identity = authenticate(request).map_err(|error| deny(Sender::default(), error))?;
    match identity.require(scope) {
        Ok(()) => Ok(identity),
        Err(error) => Err(deny(Sender { tenant: identity.tenant, subject: identity.subject }, error.into())),
    }
}
