//! What a tenant may have in the store, whichever door it comes through.

use relay_protocol::UploadId;
use relay_protocol::session::UploadBeginV2;
use serde_json::Value;

use crate::cluster::{completed, loudness, wav};
use crate::s3::on_both;
use crate::wire::Wire;

#[actix_web::test]
async fn a_full_tenant_is_refused_at_every_door() {
    let env = [("RELAY__STORE__TENANT_BYTES_MAX", "1000000"), ("RELAY__INPUTS__INLINE_BYTES_MAX", "1000")];
    on_both(1, &env, async |cluster| {
        let client = cluster.client(&cluster.url(0)).await;
        // 640,044 bytes: there is room for one of them.
        completed(client.submit(loudness(wav(20))).await.expect("the first fits")).await;
        let refused = client.submit(loudness(wav(20))).await.map(|handle| handle.job_id()).unwrap_err();
        assert!(refused.to_string().contains("quota_exceeded"), "{refused}");

        let form = || {
            let part = reqwest::multipart::Part::bytes(wav(20)).file_name("tone.wav");
            reqwest::multipart::Form::new().part("file", part).text("task", "loudness")
        };
        let post = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url(0))).multipart(form());
        expect_full(post.send().await.unwrap()).await;
        let url = format!("{}/v1/uploads/{}", cluster.url(0), UploadId::new(21));
        expect_full(reqwest::Client::new().put(&url).body(wav(20)).send().await.unwrap()).await;
        assert_eq!(cluster.count("uploads").await, 1, "what was refused is not stored");
        // What is left may still be used.
        completed(client.submit(loudness(wav(8))).await.expect("a small one fits")).await;
        client.close().await;
    })
    .await;
}

/// Without a byte left not even a begin is answered.
#[actix_web::test]
async fn an_upload_that_cannot_fit_does_not_begin() {
    on_both(1, &[("RELAY__STORE__TENANT_BYTES_MAX", "500000")], async |cluster| {
        let mut wire = Wire::open(&cluster.address(0)).await;
        let begin = UploadBeginV2 {
            request: 1,
            upload_id: UploadId::new(22),
            bytes: Some(500_001),
            name: String::new(),
            media_type: String::new(),
        };
        wire.say(&begin, b"").await;
        let refused = wire.error(1).await;
        assert_eq!((refused.code.as_str(), refused.retryable), ("quota_exceeded", true), "{refused:?}");
    })
    .await;
}

async fn expect_full(response: reqwest::Response) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!((status, body["error"]["code"].as_str()), (507, Some("quota_exceeded")), "{body}");
    assert_eq!(body["error"]["retryable"], true);
}
