//! The `[auth]` section: static tokens and the JWT key.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use relay_protocol::limits::is_name;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{AuthSetupError, STATIC_TOKENS_MAX, ScopeSet};

/// The keys of [`AuthSettings`] that are lists; pass them to [`crate::settings::load`].
pub const LIST_KEYS: [&str; 1] = ["auth.tokens"];

/// Clock skew that a JWT is forgiven unless `leeway_s` says otherwise, in seconds.
const LEEWAY_DEFAULT_S: u64 = 30;

/// Section `[auth]`. Empty means: loopback only, everyone anonymous.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// Static tokens, for services and small teams.
    #[serde(default)]
    pub tokens: Vec<StaticToken>,
    /// Accept JWTs of one issuer.
    #[serde(default)]
    pub jwt: Option<JwtSettings>,
}

impl AuthSettings {
    /// Whether nobody needs to say who they are.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.jwt.is_none()
    }
}

/// One static token. In TOML a table `{ subject, tenant, scopes, sha256 }`; in TOML or in a variable also the text
/// `SUBJECT/TENANT/SCOPE+SCOPE/SHA256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// Who holds it; appears in jobs and in the audit trail.
    pub subject: String,
    /// For whom they act.
    pub tenant: String,
    /// What they may do.
    pub scopes: ScopeSet,
    /// SHA-256 of the token, as `printf %s "$TOKEN" | sha256sum` prints it.
    pub sha256: TokenHash,
}

/// SHA-256 of a token; 64 hex digits in settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// Section `[auth.jwt]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The only algorithm that is accepted, whatever a token's header says.
    pub algorithm: JwtAlgorithm,
    /// `EdDSA`: the public key as PEM. `HS256`: the shared secret, at least 32 bytes; line ends at its end do not count.
    pub key_file: PathBuf,
    /// What the claim `iss` must be.
    pub issuer: String,
    /// What the claim `aud` must be or hold.
    pub audience: String,
    /// Clock skew that `exp` and `nbf` are forgiven, in seconds; 0 to 300.
    #[serde(default = "leeway_default_s")]
    pub leeway_s: u64,
}

/// How JWTs are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// Ed25519: only the issuer can sign.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// HMAC-SHA-256: whoever can check can also sign.
    #[serde(rename = "HS256")]
    Hs256,
}

fn leeway_default_s() -> u64 {
    LEEWAY_DEFAULT_S
}

/// Refuses entries that could not mean what was meant.
pub(super) fn check_tokens(tokens: &[StaticToken]) -> Result<(), AuthSetupError> {
    let refuse = |reason: String| Err(AuthSetupError::Tokens(reason));
    if tokens.len() > STATIC_TOKENS_MAX {
        return refuse(format!("{} tokens, at most {STATIC_TOKENS_MAX} are allowed; use auth.jwt", tokens.len()));
    }
    let mut seen = HashSet::new();
    for StaticToken { subject, tenant, scopes, sha256 } in tokens {
        if !is_name(subject) || !is_name(tenant) {
            return refuse(format!(
                "subject {subject:?} of tenant {tenant:?}: names have 1 to 255 bytes, no control characters"
            ));
        }
        if scopes.is_empty() {
            return refuse(format!("the token of {subject:?} has no scope, so it could do nothing"));
        }
        if !seen.insert(sha256) {
            return refuse(format!("the token of {subject:?} is listed twice"));
        }
    }
    Ok(())
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TokenHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| "sha256 must be 64 hex digits, as `printf %s \"$TOKEN\" | sha256sum` prints them")?;
        Ok(Self(bytes))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl FromStr for StaticToken {
    type Err = String;

    /// Reads `SUBJECT/TENANT/SCOPE+SCOPE/SHA256`; only the subject may hold slashes.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(4, '/');
        let mut part = || parts.next().ok_or("a token is written SUBJECT/TENANT/SCOPE+SCOPE/SHA256".to_owned());
        let (sha256, scopes, tenant, subject) = (part()?, part()?, part()?, part()?);
        let scopes =
            scopes.split('+').map(str::parse).collect::<Result<_, super::UnknownScope>>().map_err(|e| e.to_string())?;
        Ok(Self { subject: subject.to_owned(), tenant: tenant.to_owned(), scopes, sha256: sha256.parse()? })
    }
}

impl<'de> Deserialize<'de> for StaticToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenVisitor)
    }
}

struct TokenVisitor;

impl<'de> Visitor<'de> for TokenVisitor {
    type Value = StaticToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with subject, tenant, scopes and sha256, or the text SUBJECT/TENANT/SCOPE+SCOPE/SHA256")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<StaticToken, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StaticToken, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            subject: String,
            tenant: String,
            scopes: ScopeSet,
            sha256: TokenHash,
        }
        let Table { subject, tenant, scopes, sha256 } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(StaticToken { subject, tenant, scopes, sha256 })
    }
}
