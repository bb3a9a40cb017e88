//! Identity in an HTTP handler: take a [`Caller`] as an argument, and the request is authenticated before it runs.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};

use crate::auth::{AuthError, Authenticator, Identity, bearer_from_header};
use crate::http_error::ApiError;

/// Who calls. Needs `web::Data<Authenticator>` in the app; check rights with [`Identity::require`].
#[derive(Debug, Clone)]
pub struct Caller(pub Identity);

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(authenticate(request).map(Self))
    }
}

/// The identity behind `request`'s `Authorization` header.
///
/// # Errors
/// 401 in shape; 500 when the app has no `web::Data<Authenticator>`.
pub fn authenticate(request: &HttpRequest) -> Result<Identity, ApiError> {
    let Some(authenticator) = request.app_data::<web::Data<Authenticator>>() else {
        return Err(ApiError::internal(&"the app has no Authenticator"));
    };
    if authenticator.is_open() {
        return Ok(Identity::anonymous()); // whatever a client or a proxy sends along
    }
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let header = match (headers.next(), headers.next()) {
        (None, _) => None,
        // Two headers, or bytes that are no text: a proxy in between may have judged by the other one.
        (Some(_), Some(_)) => return Err(AuthError::unauthenticated("more than one Authorization header").into()),
        (Some(value), None) => {
            let text =
                value.to_str().map_err(|_| AuthError::unauthenticated("the Authorization header is not ASCII"))?;
            Some(text)
        }
    };
    let bearer = bearer_from_header(header)?;
    Ok(authenticator.authenticate(bearer)?)
}
