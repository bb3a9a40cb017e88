//! Resume tokens: what a session was, for whichever node its client goes on at. Nobody remembers them.
//!
//! A token says where to read, not what may be seen: the caller that resumes is authenticated anyway, and sees nothing but the jobs of its
//! own tenant. With a secret that all nodes share the token is sealed (HMAC-SHA-256); without one the seal only tells damage.

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use relay_protocol::SessionId;
use relay_runtime::auth::Identity;
use sha2::{Digest, Sha256};

/// First part of every token.
const VERSION: &str = "r1";
/// Least length of a secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Bytes of a digest or seal that are kept.
const DIGEST_BYTES: usize = 16;
/// Bytes of a token's body.
const BODY_BYTES: usize = 16 + DIGEST_BYTES + 4 + 3 * 8;

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

/// Makes and checks tokens.
pub struct ResumeTokens {
    secret: Option<Vec<u8>>,
}

impl ResumeTokens {
    /// With the secret in `file`; an empty name: without one.
    ///
    /// # Errors
    /// The file cannot be read, or its secret is too short.
    pub fn open(file: &str) -> anyhow::Result<Self> {
        if file.is_empty() {
            return Ok(Self { secret: None });
        }
        let text = std::fs::read(file).with_context(|| format!("reading gateway.resume_secret_file {file}"))?;
        let secret = text.trim_ascii().to_vec();
        let enough = secret.len() >= SECRET_BYTES_MIN;
        anyhow::ensure!(enough, "gateway.resume_secret_file {file} must hold {SECRET_BYTES_MIN} bytes at least");
        Ok(Self { secret: Some(secret) })
    }

    /// The token of a session of `identity`.
    pub fn make(&self, identity: &Identity, token: &ResumeToken) -> String {
        let mut body = Vec::with_capacity(BODY_BYTES);
        body.extend(session_bytes(token.session_id));
        body.extend(caller(identity));
        body.extend(token.reply_partition.to_be_bytes());
        for number in [token.began_at_ms, token.durable_from, token.revocable_from] {
            body.extend(number.to_be_bytes());
        }
        let signed = format!("{VERSION}.{}", BASE64_URL_SAFE_NO_PAD.encode(body));
        let seal = BASE64_URL_SAFE_NO_PAD.encode(self.seal(&signed));
        format!("{signed}.{seal}")
    }

    /// What the token tells, if it was given to `identity`.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn read(&self, identity: &Identity, text: &str) -> Result<ResumeToken, BadToken> {
        let (signed, seal) = text.rsplit_once('.').ok_or(BadToken::Damaged)?;
        let seal = BASE64_URL_SAFE_NO_PAD.decode(seal).map_err(|_| BadToken::Damaged)?;
        if !self.is_sealed(signed, &seal) {
            return Err(BadToken::Damaged);
        }
        let body = signed.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('.')).ok_or(BadToken::Damaged)?;
        let body = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| BadToken::Damaged)?;
        let (token, given_to) = parse(&body).ok_or(BadToken::Damaged)?;
        if given_to == caller(identity) { Ok(token) } else { Err(BadToken::Foreign) }
    }

    fn mac(secret: &[u8], signed: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        mac.update(signed.as_bytes());
        Some(mac)
    }

    fn seal(&self, signed: &str) -> [u8; DIGEST_BYTES] {
        let mac = self.secret.as_ref().and_then(|secret| Self::mac(secret, signed));
        match mac {
            Some(mac) => cut(mac.finalize().into_bytes().into()),
            None => cut(Sha256::digest(format!("unsealed {signed}")).into()),
        }
    }

    fn is_sealed(&self, signed: &str, seal: &[u8]) -> bool {
        match &self.secret {
            // In constant time.
            Some(secret) => {
                seal.len() == DIGEST_BYTES
                    && Self::mac(secret, signed).is_some_and(|mac| mac.verify_truncated_left(seal).is_ok())
            }
            None => self.seal(signed) == seal,
        }
    }
}

fn cut(digest: [u8; 32]) -> [u8; DIGEST_BYTES] {
    let mut kept = [0; DIGEST_BYTES];
    kept.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    kept
}

fn session_bytes(id: SessionId) -> [u8; 16] {
    // A session's id is a UUID, written as such.
    id.to_string().parse::<uuid::Uuid>().unwrap_or_default().into_bytes()
}

/// Stands for tenant and subject.
fn caller(identity: &Identity) -> [u8; DIGEST_BYTES] {
    let Identity { tenant, subject, .. } = identity;
    cut(Sha256::digest(format!("{}:{tenant}{subject}", tenant.len())).into())
}

fn parse(body: &[u8]) -> Option<(ResumeToken, [u8; DIGEST_BYTES])> {
    if body.len() != BODY_BYTES {
        return None;
    }
    let (session, rest) = body.split_first_chunk::<16>()?;
    let (given_to, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    let (partition, rest) = rest.split_first_chunk::<4>()?;
    let mut numbers = rest.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(u64::from_be_bytes));
    let token = ResumeToken {
        session_id: SessionId::new(u128::from_be_bytes(*session)),
        reply_partition: u32::from_be_bytes(*partition),
        began_at_ms: numbers.next()?,
        durable_from: numbers.next()?,
        revocable_from: numbers.next()?,
    };
    Some((token, *given_to))
}

#[cfg(test)]
#[path = "resume_token_test.rs"]
mod tests;
