//! JWTs at the door of a whole cluster: both algorithms, and the forgeries.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use relay_protocol::EventKind::Completed;
use serde_json::{Value, json};

use crate::api::expect_refusal;
use crate::cluster::Cluster;
use crate::stage::{Calls, Stage};
use crate::tenants::entry;

const SECRET: &[u8] = b"a secret of at least 32 bytes, ok?";

fn claims() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({ "sub": "ann", "tenant": "red", "scope": "jobs:read jobs:write", "iss": "https://issuer", "aud": "media-relay",
            "exp": now + 600 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

/// An Ed25519 key whose 32 secret bytes are all `seed`.
fn ed25519(seed: u8) -> EncodingKey {
    let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

fn public_pem(key: &EncodingKey) -> String {
    let AlgorithmParameters::OctetKeyPair(public) = Jwk::from_encoding_key(key, Algorithm::EdDSA).unwrap().algorithm
    else {
        panic!("not an Ed25519 key");
    };
    let mut der = hex::decode("302a300506032b6570032100").unwrap();
    der.extend(URL_SAFE_NO_PAD.decode(public.x).unwrap());
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// A token with the algorithm `none`.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// A cluster that takes the JWTs of one issuer, and the static token of `svc`.
async fn cluster(folder: &Path, algorithm: &str, key: &[u8]) -> (Cluster, Calls) {
    let key_file = folder.join("issuer.key");
    std::fs::write(&key_file, key).unwrap();
    let tokens = entry("svc", "red", "jobs:read");
    let env = [
        ("RELAY__AUTH__JWT__ALGORITHM", algorithm),
        ("RELAY__AUTH__JWT__KEY_FILE", key_file.to_str().unwrap()),
        ("RELAY__AUTH__JWT__ISSUER", "https://issuer"),
        ("RELAY__AUTH__JWT__AUDIENCE", "media-relay"),
        ("RELAY__AUTH__TOKENS", &tokens),
    ];
    let (stage, calls) = Stage::new();
    (Cluster::start(&env, |options| options.builtin = Some(stage)).await, calls)
}

/// A good token does what its claims say, and nothing beyond.
async fn expect_good(cluster: &Cluster, calls: &Calls, token: &str) {
    let api = cluster.api_of(token);
    let job = api.submit(json!({})).await;
    calls.next().await.complete();
    assert_eq!(api.life(&job).await.last().unwrap().event, Completed);
    let message = expect_refusal(api.delete(&format!("/v1/jobs/{job}")).await, 403, "forbidden");
    assert!(message.contains("jobs:cancel"), "{message}");
    // The same tenant by a static token, and by a session.
    cluster.api_of("svc-token").wait_state(&job, "completed").await;
    let client = cluster.client(Some(token)).await;
    assert_eq!(client.status(job.parse().unwrap()).await.unwrap().state, "completed");
    client.close().await;
}

async fn expect_bad(cluster: &Cluster, calls: &Calls, bad: &[(&str, String)]) {
    for (case, token) in bad {
        let message = expect_refusal(cluster.api_of(token).post(json!({})).await, 401, "unauthenticated");
        assert!(!message.contains(token), "{case}: the answer repeats the token: {message}");
    }
    assert!(calls.is_empty().await, "a bad token's job ran");
}

#[actix_web::test]
async fn eddsa_tokens_are_taken_and_forgeries_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (key, pem) = (ed25519(7), public_pem(&ed25519(7)));
    let (cluster, calls) = cluster(folder.path(), "EdDSA", pem.as_bytes()).await;
    expect_good(&cluster, &calls, &sign(Algorithm::EdDSA, &key, &claims())).await;
    let signed = |claims: &Value| sign(Algorithm::EdDSA, &key, claims);
    let good = signed(&claims());
    let [head, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let swapped = URL_SAFE_NO_PAD.encode(with("tenant", json!("blue")).to_string());
    let bad = [
        ("expired", signed(&with("exp", json!(1_700_000_000)))),
        ("not yet", signed(&with("nbf", json!(4_000_000_000_u64)))),
        ("another key", sign(Algorithm::EdDSA, &ed25519(8), &claims())),
        ("another issuer", signed(&with("iss", json!("https://other")))),
        ("another audience", signed(&with("aud", json!("other")))),
        ("no tenant", signed(&with("tenant", Value::Null))),
        ("another algorithm", sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET), &claims())),
        ("the public key as secret", sign(Algorithm::HS256, &EncodingKey::from_secret(pem.as_bytes()), &claims())),
        ("none", unsigned(&claims())),
        ("claims changed", format!("{head}.{swapped}.{signature}")),
        ("cut", good[..good.len() - 4].to_owned()),
    ];
    expect_bad(&cluster, &calls, &bad).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn hs256_tokens_are_taken_and_forgeries_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, calls) = cluster(folder.path(), "HS256", SECRET).await;
    let key = EncodingKey::from_secret(SECRET);
    expect_good(&cluster, &calls, &sign(Algorithm::HS256, &key, &claims())).await;
    let bad = [
        ("expired", sign(Algorithm::HS256, &key, &with("exp", json!(1_700_000_000)))),
        ("another key", sign(Algorithm::HS256, &EncodingKey::from_secret(&[7; 32]), &claims())),
        ("another algorithm", sign(Algorithm::HS384, &key, &claims())),
        ("EdDSA", sign(Algorithm::EdDSA, &ed25519(7), &claims())),
        ("none", unsigned(&claims())),
    ];
    expect_bad(&cluster, &calls, &bad).await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_tenant_of_a_token_does_not_see_the_jobs_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, calls) = cluster(folder.path(), "HS256", SECRET).await;
    let key = EncodingKey::from_secret(SECRET);
    let red = cluster.api_of(&sign(Algorithm::HS256, &key, &claims()));
    let blue = cluster.api_of(&sign(Algorithm::HS256, &key, &with("tenant", json!("blue"))));
    let job = red.submit(json!({})).await;
    calls.next().await.complete();
    expect_refusal(blue.get(&format!("/v1/jobs/{job}")).await, 404, "unknown_job");
    red.wait_state(&job, "completed").await;
    cluster.stop().await;
}
