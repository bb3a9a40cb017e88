//! Who calls, for which tenant, and what they may do: static tokens and JWTs, or nobody in particular on loopback.
//!
//! Tokens are stored as SHA-256 only; a token is random and long, so no slow hash is needed. Without tokens and without
//! JWT settings everyone is [`Identity::anonymous`], and [`check_bind`] keeps such a process on loopback.

use relay_protocol::ErrorCode;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

mod bind;
mod jwt;
mod scope;
mod settings;

pub use self::bind::{BindError, check_bind};
pub use self::scope::{Scope, ScopeSet, UnknownScope};
pub use self::settings::{AuthSettings, JwtAlgorithm, JwtSettings, LIST_KEYS, StaticToken, TokenHash};

/// Longest bearer token that is looked at, in bytes.
pub const BEARER_BYTES_MAX: usize = 8_192;
/// Fewest bytes of an HS256 secret (RFC 7518, section 3.2).
pub const HS256_SECRET_BYTES_MIN: usize = 32;
/// Most static tokens; beyond that use JWTs.
pub const STATIC_TOKENS_MAX: usize = 1_024;

/// Subject of a caller who need not say who they are.
pub const ANONYMOUS: &str = "anonymous";
/// Tenant of a caller who need not say who they are.
pub const DEFAULT_TENANT: &str = "default";

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who: appears in jobs, streams and the audit trail.
    pub subject: String,
    /// For whom: what belongs to one tenant is invisible to another.
    pub tenant: String,
    /// What they may do.
    pub scopes: ScopeSet,
}

impl Identity {
    /// The caller when nothing is configured: [`ANONYMOUS`] of [`DEFAULT_TENANT`], with every scope.
    pub fn anonymous() -> Self {
        Self { subject: ANONYMOUS.to_owned(), tenant: DEFAULT_TENANT.to_owned(), scopes: ScopeSet::all() }
    }

    /// Nothing, if the caller has `scope` or [`Scope::Admin`].
    ///
    /// # Errors
    /// [`AuthError::Forbidden`] with the scope that is missing.
    pub fn require(&self, scope: Scope) -> Result<(), AuthError> {
        if self.scopes.contains(scope) { Ok(()) } else { Err(AuthError::Forbidden { scope }) }
    }
}

/// Why a caller is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No token, or none that is valid.
    #[error("not authenticated: {reason}")]
    Unauthenticated {
        /// What is wrong with the token; never the token itself.
        reason: &'static str,
    },
    /// The caller is known, but lacks a scope.
    #[error("not allowed: the token lacks the scope {scope}")]
    Forbidden {
        /// The scope that is missing.
        scope: Scope,
    },
}

impl AuthError {
    /// The stable code: `unauthenticated` or `forbidden`.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthenticated { .. } => ErrorCode::Unauthenticated,
            Self::Forbidden { .. } => ErrorCode::Forbidden,
        }
    }

    pub(crate) fn unauthenticated(reason: &'static str) -> Self {
        Self::Unauthenticated { reason }
    }
}

/// Why the identity settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthSetupError {
    /// Two entries have the same token, or there are too many, or a name does not fit.
    #[error("auth.tokens: {0}")]
    Tokens(String),
    /// The JWT key file cannot be read.
    #[error("auth.jwt.key_file {}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The JWT settings contradict themselves or the key.
    #[error("auth.jwt: {0}")]
    Jwt(String),
}

/// Decides who a caller is. Make one at start and share it.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Vec<(TokenHash, Identity)>,
    jwt: Option<jwt::Verifier>,
}

impl Authenticator {
    /// Checks the settings and reads the JWT key.
    ///
    /// # Errors
    /// [`AuthSetupError`]; the process must not start then.
    pub fn new(settings: &AuthSettings) -> Result<Self, AuthSetupError> {
        settings::check_tokens(&settings.tokens)?;
        let identity = |token: &StaticToken| Identity {
            subject: token.subject.clone(),
            tenant: token.tenant.clone(),
            scopes: token.scopes,
        };
        let tokens = settings.tokens.iter().map(|token| (token.sha256, identity(token))).collect();
        let jwt = settings.jwt.as_ref().map(jwt::Verifier::new).transpose()?;
        Ok(Self { tokens, jwt })
    }

    /// Whether everyone is let in as [`Identity::anonymous`].
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none()
    }

    /// Who presents `bearer`: a static token, else a JWT. When nothing is configured everyone is anonymous.
    ///
    /// # Errors
    /// [`AuthError::Unauthenticated`].
    pub fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, AuthError> {
        if self.is_open() {
            return Ok(Identity::anonymous());
        }
        let bearer = bearer.ok_or(AuthError::unauthenticated("no token; send `Authorization: Bearer <token>`"))?;
        if bearer.len() > BEARER_BYTES_MAX {
            return Err(AuthError::unauthenticated("the token is too long"));
        }
        if let Some(identity) = self.static_token(bearer) {
            return Ok(identity.clone());
        }
        match &self.jwt {
            Some(verifier) => verifier.verify(bearer),
            None => Err(AuthError::unauthenticated("unknown token")),
        }
    }

    /// Compares with every known hash, so that the time taken tells nothing about which one was near.
    fn static_token(&self, bearer: &str) -> Option<&Identity> {
        let hash = TokenHash::of(bearer);
        let mut found = u64::MAX;
        for (at, (known, _)) in (0_u64..).zip(&self.tokens) {
            let same: Choice = known.0.ct_eq(&hash.0);
            found = u64::conditional_select(&found, &at, same);
        }
        self.tokens.get(usize::try_from(found).ok()?).map(|(_, identity)| identity)
    }
}

impl TokenHash {
    /// The hash of `token` as it is configured: SHA-256 of its bytes.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// The token in an `Authorization` header: `Bearer <token>`, the scheme in any case of letters. No header is `None`.
///
/// # Errors
/// [`AuthError::Unauthenticated`]: another scheme, an empty token, or blanks inside.
pub fn bearer_from_header(header: Option<&str>) -> Result<Option<&str>, AuthError> {
    let Some(header) = header else { return Ok(None) };
    let (scheme, token) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::unauthenticated("only `Authorization: Bearer <token>` is understood"));
    }
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AuthError::unauthenticated("the Authorization header holds no usable token"));
    }
    Ok(Some(token))
}
