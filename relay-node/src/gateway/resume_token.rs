//! Resume tokens: what a session was, for whichever node its client goes on at. Nobody remembers them.
//!
//! A token says where to read, not what may be seen: the caller that resumes is authenticated anyway, and sees nothing but the jobs of its
//! own tenant. It is a JWT (HS256). With a secret that all nodes share nobody else can make one; without, a seal that everybody could make tells
//! damage.

use anyhow::Context as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use relay_protocol::SessionId;
use relay_runtime::auth::Identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Least length of a secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// What seals tokens where there is no secret. Too short to be one.
const NO_SECRET: &[u8] = b"unsealed";
/// Bytes of the digest that stands for a caller.
const CALLER_BYTES: usize = 16;

/// What a token tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeToken {
    /// The session that it was given to.
    pub session_id: SessionId,
    /// Partition of the job ids that the session made.
    pub reply_partition: u32,
    /// When the session began, in milliseconds since the Unix epoch.
    pub began_at_ms: u64,
    /// The next offset of the durable events when it began: those of its own jobs lie there or behind.
    pub durable_from: u64,
    /// The same of the revocable events.
    pub revocable_from: u64,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It is no token, damaged, or sealed with another secret.
    #[error("the resume token is damaged, or of another cluster")]
    Damaged,
    /// It was given to somebody else.
    #[error("the resume token was given to another caller")]
    Foreign,
}

/// The token's claims.
#[derive(Serialize, Deserialize)]
struct Claims {
    session: SessionId,
    caller: String,
    partition: u32,
    began: u64,
    durable: u64,
    revocable: u64,
}

/// Makes and checks tokens.
pub struct ResumeTokens {
    seal: EncodingKey,
    check: DecodingKey,
    rules: Validation,
}

impl ResumeTokens {
    /// With the secret in `file`; an empty name: without one.
    ///
    /// # Errors
    /// The file cannot be read, or its secret is too short.
    pub fn open(file: &str) -> anyhow::Result<Self> {
        if file.is_empty() {
            return Ok(Self::new(NO_SECRET));
        }
        let text = std::fs::read(file).with_context(|| format!("reading gateway.resume_secret_file {file}"))?;
        let secret = text.trim_ascii();
        let enough = secret.len() >= SECRET_BYTES_MIN;
        anyhow::ensure!(enough, "gateway.resume_secret_file {file} must hold {SECRET_BYTES_MIN} bytes at least");
        Ok(Self::new(secret))
    }

    fn new(secret: &[u8]) -> Self {
        let mut rules = Validation::new(Algorithm::HS256);
        // A token is good for as long as what it names can be read.
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        Self { seal: EncodingKey::from_secret(secret), check: DecodingKey::from_secret(secret), rules }
    }

    /// The token of a session of `identity`.
    ///
    /// # Errors
    /// None is known: numbers and short strings can be written as JSON, and any secret seals.
    pub fn make(&self, identity: &Identity, token: &ResumeToken) -> anyhow::Result<String> {
        let claims = Claims {
            session: token.session_id,
            caller: caller(identity),
            partition: token.reply_partition,
            began: token.began_at_ms,
            durable: token.durable_from,
            revocable: token.revocable_from,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.seal).context("sealing a resume token")
    }

    /// What the token tells, if it was given to `identity`.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn read(&self, identity: &Identity, text: &str) -> Result<ResumeToken, BadToken> {
        let claims =
            jsonwebtoken::decode::<Claims>(text, &self.check, &self.rules).map_err(|_| BadToken::Damaged)?.claims;
        if claims.caller != caller(identity) {
            return Err(BadToken::Foreign);
        }
        Ok(ResumeToken {
            session_id: claims.session,
            reply_partition: claims.partition,
            began_at_ms: claims.began,
            durable_from: claims.durable,
            revocable_from: claims.revocable,
        })
    }
}

/// Stands for tenant and subject, which may be long.
fn caller(identity: &Identity) -> String {
    let Identity { tenant, subject, .. } = identity;
    let digest = Sha256::digest(format!("{}:{tenant}{subject}", tenant.len()));
    hex::encode(digest.get(..CALLER_BYTES).unwrap_or(&digest))
}

#[cfg(test)]
#[path = "resume_token_test.rs"]
mod tests;
