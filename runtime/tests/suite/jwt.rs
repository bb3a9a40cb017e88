//! JWTs: what is accepted, and every way in which one must not be.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use relay_protocol::ErrorCode;
use relay_runtime::auth::{AuthSettings, Authenticator, JwtAlgorithm, JwtSettings, Scope, StaticToken, TokenHash};
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of at least 32 bytes, ok?";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "sub": "ann", "tenant": "red", "scope": "openid jobs:read jobs:write", "iss": "https://issuer", "aud": "media-relay",
            "exp": now_s() + 600 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// A folder with a key file, and an authenticator that reads it.
struct Issuer {
    folder: tempfile::TempDir,
    settings: JwtSettings,
    signer: EncodingKey,
    algorithm: Algorithm,
}

impl Issuer {
    fn hs256() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SECRET.to_vec();
        file.extend(b"\r\n");
        let settings = settings(JwtAlgorithm::Hs256, key_file(&folder, &file));
        Self { folder, settings, signer: EncodingKey::from_secret(SECRET), algorithm: Algorithm::HS256 }
    }

    fn eddsa(seed: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = ed25519_signer(seed);
        let settings = settings(JwtAlgorithm::EdDsa, key_file(&folder, public_pem(&signer).as_bytes()));
        Self { folder, settings, signer, algorithm: Algorithm::EdDSA }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.signer).unwrap()
    }

    fn auth(&self) -> Authenticator {
        Authenticator::new(&AuthSettings { tokens: Vec::new(), jwt: Some(self.settings.clone()) }).unwrap()
    }

    fn refusal(&self, token: &str) -> String {
        let error = self.auth().authenticate(Some(token)).expect_err("must be refused");
        assert_eq!(error.code(), ErrorCode::Unauthenticated);
        error.to_string()
    }
}

fn settings(algorithm: JwtAlgorithm, key_file: PathBuf) -> JwtSettings {
    let (issuer, audience) = ("https://issuer".to_owned(), "media-relay".to_owned());
    JwtSettings { algorithm, key_file, issuer, audience, leeway_s: 30 }
}

fn key_file(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("key");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// PKCS#8 of an Ed25519 key whose 32 secret bytes are all `seed`.
fn ed25519_signer(seed: u8) -> EncodingKey {
    let mut der = hex("302e020100300506032b657004220420");
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

fn public_pem(signer: &EncodingKey) -> String {
    let AlgorithmParameters::OctetKeyPair(public) = Jwk::from_encoding_key(signer, Algorithm::EdDSA).unwrap().algorithm
    else {
        panic!("not an Ed25519 key");
    };
    let mut der = hex("302a300506032b6570032100");
    der.extend(URL_SAFE_NO_PAD.decode(public.x).unwrap());
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A token with any header and any signature.
fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_good_token_is_its_claims() {
    for issuer in [Issuer::hs256(), Issuer::eddsa(7)] {
        let identity = issuer.auth().authenticate(Some(&issuer.sign(&claims()))).unwrap();
        assert_eq!((identity.subject.as_str(), identity.tenant.as_str()), ("ann", "red"));
        assert_eq!(identity.scopes.to_string(), "jobs:write jobs:read");
        assert!(identity.require(Scope::JobsCancel).is_err());
    }
}

#[test]
fn several_audiences_and_no_scope_are_fine() {
    let issuer = Issuer::eddsa(7);
    let token = issuer.sign(&with("aud", json!(["other", "media-relay"])));
    assert!(issuer.auth().authenticate(Some(&token)).is_ok());
    let identity = issuer.auth().authenticate(Some(&issuer.sign(&without("scope")))).unwrap();
    assert!(identity.scopes.is_empty());
    assert!(identity.require(Scope::JobsRead).is_err());
}

#[test]
fn the_leeway_is_forgiven_and_no_more() {
    let issuer = Issuer::hs256();
    let auth = issuer.auth();
    assert!(auth.authenticate(Some(&issuer.sign(&with("exp", json!(now_s() - 5))))).is_ok());
    assert!(issuer.refusal(&issuer.sign(&with("exp", json!(now_s() - 60)))).contains("expired"));
    assert!(auth.authenticate(Some(&issuer.sign(&with("nbf", json!(now_s() + 5))))).is_ok());
    assert!(issuer.refusal(&issuer.sign(&with("nbf", json!(now_s() + 120)))).contains("not valid yet"));
}

#[test]
fn every_claim_that_is_needed_is_needed() {
    for issuer in [Issuer::hs256(), Issuer::eddsa(7)] {
        for name in ["exp", "iss", "aud", "sub", "tenant"] {
            let text = issuer.refusal(&issuer.sign(&without(name)));
            assert!(
                text.contains("lacks") || text.contains("no tenant") || text.contains("malformed"),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn claims_of_the_wrong_kind_or_for_others_are_refused() {
    let issuer = Issuer::eddsa(7);
    let refused = |name, value: Value| issuer.refusal(&issuer.sign(&with(name, value)));
    assert!(refused("aud", json!("other")).contains("audience"));
    assert!(refused("aud", json!([])).contains("audience"));
    assert!(refused("iss", json!("https://evil")).contains("issuer"));
    for (name, value) in [
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("tenant", json!("")),
        ("tenant", json!(["red"])),
        ("tenant", json!("a\u{0}b")),
        ("tenant", Value::Null),
        ("sub", json!("x".repeat(256))),
        ("scope", json!(["admin"])),
    ] {
        refused(name, value.clone());
    }
}

#[test]
fn the_algorithm_none_is_refused() {
    for issuer in [Issuer::hs256(), Issuer::eddsa(7)] {
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            for signature in [&b""[..], b"x"] {
                issuer.refusal(&raw(&json!({ "alg": alg, "typ": "JWT" }), &claims(), signature));
            }
        }
        issuer.refusal(&raw(&json!({ "typ": "JWT" }), &claims(), b""));
    }
}

#[test]
fn a_public_key_cannot_be_used_as_a_secret() {
    let issuer = Issuer::eddsa(7);
    let pem = public_pem(&issuer.signer);
    let raw_key =
        URL_SAFE_NO_PAD.decode(match Jwk::from_encoding_key(&issuer.signer, Algorithm::EdDSA).unwrap().algorithm {
            AlgorithmParameters::OctetKeyPair(public) => public.x,
            other => panic!("{other:?}"),
        });
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &raw_key.unwrap()] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let forged = encode(&Header::new(algorithm), &claims(), &EncodingKey::from_secret(secret)).unwrap();
            assert!(issuer.refusal(&forged).contains("another algorithm"));
        }
    }
}

#[test]
fn another_algorithm_with_the_right_secret_is_refused() {
    let issuer = Issuer::hs256();
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(&Header::new(algorithm), &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
        assert!(issuer.refusal(&token).contains("another algorithm"));
    }
    assert!(issuer.refusal(&Issuer::eddsa(7).sign(&claims())).contains("another algorithm"));
}

#[test]
fn another_key_is_refused_also_when_the_token_brings_it_along() {
    let issuer = Issuer::eddsa(7);
    let stranger = ed25519_signer(8);
    let mut header = Header::new(Algorithm::EdDSA);
    header.jwk = Some(Jwk::from_encoding_key(&stranger, Algorithm::EdDSA).unwrap());
    header.kid = Some("../../dev/null".to_owned());
    let token = encode(&header, &claims(), &stranger).unwrap();
    assert!(issuer.refusal(&token).contains("signature"));
    let other = encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(&[1; 32])).unwrap();
    assert!(Issuer::hs256().refusal(&other).contains("signature"));
}

#[test]
fn a_changed_token_is_refused() {
    for issuer in [Issuer::hs256(), Issuer::eddsa(7)] {
        let token = issuer.sign(&claims());
        let parts: Vec<_> = token.split('.').collect();
        let richer = URL_SAFE_NO_PAD.encode(with("scope", json!("admin")).to_string());
        assert!(issuer.refusal(&format!("{}.{richer}.{}", parts[0], parts[2])).contains("signature"));
        for broken in [
            parts[..2].join("."),
            format!("{token}.x"),
            format!("{token}="),
            "..".to_owned(),
            format!("{}..", parts[0]),
        ] {
            issuer.refusal(&broken);
        }
    }
}

#[test]
fn static_tokens_and_jwts_live_side_by_side() {
    let issuer = Issuer::eddsa(7);
    let scopes = [Scope::Admin].into_iter().collect();
    let token = StaticToken { subject: "ops".into(), tenant: "t".into(), scopes, sha256: TokenHash::of("static") };
    let auth = Authenticator::new(&AuthSettings { tokens: vec![token], jwt: Some(issuer.settings.clone()) }).unwrap();
    assert_eq!(auth.authenticate(Some("static")).unwrap().subject, "ops");
    assert_eq!(auth.authenticate(Some(&issuer.sign(&claims()))).unwrap().subject, "ann");
    assert!(auth.authenticate(Some("neither")).is_err());
    assert!(auth.authenticate(None).is_err());
}

#[test]
fn keys_that_cannot_be_meant_stop_the_start() {
    let refusal = |issuer: &Issuer, change: &dyn Fn(&mut JwtSettings)| {
        let mut settings = issuer.settings.clone();
        change(&mut settings);
        Authenticator::new(&AuthSettings { tokens: Vec::new(), jwt: Some(settings) }).unwrap_err().to_string()
    };
    let (ed, hs) = (Issuer::eddsa(7), Issuer::hs256());
    assert!(refusal(&ed, &|s| s.key_file = "/nonexistent".into()).contains("/nonexistent"));
    assert!(refusal(&ed, &|s| s.algorithm = JwtAlgorithm::Hs256).contains("PEM"));
    assert!(refusal(&hs, &|s| s.algorithm = JwtAlgorithm::EdDsa).contains("PEM"));
    assert!(refusal(&ed, &|s| s.issuer.clear()).contains("issuer"));
    assert!(refusal(&ed, &|s| s.audience.clear()).contains("audience"));
    assert!(refusal(&ed, &|s| s.leeway_s = 301).contains("300"));
    key_file(&hs.folder, b"31 bytes are one byte too few!!\n");
    assert!(refusal(&hs, &|_| ()).contains("31 bytes"));
    let mut der = hex("302e020100300506032b657004220420");
    der.extend([7; 32]);
    let private = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    key_file(&ed.folder, private.as_bytes());
    assert!(refusal(&ed, &|_| ()).contains("public key"), "a private key has no place on a relay");
}
