//! JWTs of one issuer: algorithm, issuer and audience are pinned by the settings, never taken from the token.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use relay_protocol::limits::is_name;
use serde::Deserialize;

use super::{AuthError, AuthSetupError, HS256_SECRET_BYTES_MIN, Identity, JwtAlgorithm, JwtSettings, ScopeSet};

/// Most clock skew that may be forgiven, in seconds.
const LEEWAY_MAX_S: u64 = 300;

/// Checks JWTs.
pub(super) struct Verifier {
    key: DecodingKey,
    rules: Validation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("algorithms", &self.rules.algorithms).finish_non_exhaustive()
    }
}

/// What is read from a token; `exp`, `nbf`, `iss` and `aud` are checked by the library.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    tenant: Option<String>,
    scope: Option<String>,
}

impl Verifier {
    pub(super) fn new(settings: &JwtSettings) -> Result<Self, AuthSetupError> {
        let refuse = |reason: &str| Err(AuthSetupError::Jwt(reason.to_owned()));
        if settings.issuer.is_empty() || settings.audience.is_empty() {
            return refuse("issuer and audience must not be empty: they keep tokens made for others out");
        }
        if settings.leeway_s > LEEWAY_MAX_S {
            return refuse("leeway_s must be at most 300");
        }
        let path = settings.key_file.clone();
        let bytes = std::fs::read(&path).map_err(|source| AuthSetupError::KeyFile { path, source })?;
        let (algorithm, key) = match settings.algorithm {
            JwtAlgorithm::EdDsa => (Algorithm::EdDSA, ed25519_key(&bytes)?),
            JwtAlgorithm::Hs256 => (Algorithm::HS256, secret(&bytes)?),
        };
        let mut rules = Validation::new(algorithm);
        rules.leeway = settings.leeway_s;
        rules.validate_nbf = true;
        rules.set_issuer(&[&settings.issuer]);
        rules.set_audience(&[&settings.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self { key, rules })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules)
            .map_err(|error| AuthError::unauthenticated(words(error.kind())))?
            .claims;
        let tenant = claims.tenant.ok_or(AuthError::unauthenticated("the token has no tenant"))?;
        if !is_name(&claims.sub) || !is_name(&tenant) {
            return Err(AuthError::unauthenticated(
                "the token's sub or tenant is empty, too long, or has control characters",
            ));
        }
        let scopes = ScopeSet::from_claim(claims.scope.as_deref().unwrap_or_default());
        Ok(Identity { subject: claims.sub, tenant, scopes })
    }
}

fn ed25519_key(pem: &[u8]) -> Result<DecodingKey, AuthSetupError> {
    DecodingKey::from_ed_pem(pem).map_err(|error| {
        let reason = format!("key_file must hold an Ed25519 public key as PEM (-----BEGIN PUBLIC KEY-----): {error}");
        AuthSetupError::Jwt(reason)
    })
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, AuthSetupError> {
    let secret = bytes.trim_ascii_end();
    if secret.starts_with(b"-----BEGIN") {
        // A public key as HMAC secret would let everyone who knows it sign.
        return Err(AuthSetupError::Jwt(
            "HS256 takes a shared secret, but key_file holds a PEM key; did you mean EdDSA".to_owned(),
        ));
    }
    if secret.len() < HS256_SECRET_BYTES_MIN {
        let found = secret.len();
        return Err(AuthSetupError::Jwt(format!(
            "the HS256 secret has {found} bytes, at least {HS256_SECRET_BYTES_MIN} are needed"
        )));
    }
    Ok(DecodingKey::from_secret(secret))
}

/// What is wrong with a token, in words for its holder.
fn words(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token was made for another audience",
        ErrorKind::InvalidIssuer => "the token comes from another issuer",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of the claims exp, iss, aud, sub",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "the token is signed by another algorithm",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        _ => "unknown or malformed token",
    }
}
