//! Uploads over HTTP: the same ids, the same rules.

use relay_protocol::UploadId;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::cluster::{Cluster, PATIENCE, wait_for, wav};
use crate::s3::on_both;

struct Uploads<'a> {
    cluster: &'a Cluster,
    id: UploadId,
}

impl Uploads<'_> {
    fn url(&self, node: usize) -> String {
        format!("{}/v1/uploads/{}", self.cluster.url(node), self.id)
    }

    async fn answer(request: reqwest::RequestBuilder) -> Response {
        request.timeout(PATIENCE).send().await.expect("the node answers")
    }

    /// `HEAD`: the byte that comes next, and whether the upload is finished; `None` if there is none.
    async fn stands(&self, node: usize) -> Option<(u64, bool)> {
        let response = Self::answer(reqwest::Client::new().head(self.url(node))).await;
        if response.status() == StatusCode::NOT_FOUND {
            return None;
        }
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        Some((header("upload-offset").parse().unwrap(), header("upload-complete") == "?1"))
    }

    async fn put(&self, node: usize, range: &str, body: &[u8]) -> Response {
        let request = reqwest::Client::new().put(self.url(node)).body(body.to_vec());
        let request = if range.is_empty() { request } else { request.header("Content-Range", range) };
        Self::answer(request).await
    }

    async fn end(&self, node: usize, end: Value) -> Response {
        Self::answer(reqwest::Client::new().post(self.url(node)).json(&end)).await
    }
}

async fn expect(response: Response, status: u16, code: &str) -> Value {
    let found = response.status().as_u16();
    let body: Value = response.json().await.expect("the answer is JSON");
    assert_eq!(found, status, "{body}");
    if !code.is_empty() {
        assert_eq!(body["error"]["code"], code, "{body}");
    }
    body
}

fn end_of(media: &[u8]) -> Value {
    json!({ "bytes": media.len(), "sha256": hex::encode(Sha256::digest(media)), "name": "tone.wav" })
}

#[actix_web::test]
async fn pieces_over_any_node_become_one_object() {
    on_both(2, &[], async |cluster| {
        let media = wav(20);
        let all = media.len();
        let uploads = Uploads { cluster, id: UploadId::new(11) };
        assert_eq!(uploads.stands(0).await, None);
        expect(uploads.end(0, end_of(&media)).await, 404, "unknown_upload").await;

        let range = |first: usize, end: usize| format!("bytes {first}-{}/{all}", end - 1);
        let answer = expect(uploads.put(0, &range(0, 100_000), &media[..100_000]).await, 200, "").await;
        assert_eq!(answer, json!({ "upload": uploads.id.to_string(), "next": 100_000 }));
        assert_eq!(uploads.stands(1).await, Some((100_000, false)));
        for (first, end) in [(100_001, 200_000), (50_000, 150_000), (0, 10)] {
            let refused = uploads.put(1, &range(first, end), &media[first..end]).await;
            assert_eq!(refused.headers()["upload-offset"], "100000");
            expect(refused, 409, "wrong_offset").await;
        }
        expect(uploads.put(1, &range(100_000, 200_000), &media[100_000..199_999]).await, 400, "bad_request").await;
        assert_eq!(uploads.stands(0).await, Some((199_999, false)), "what came of a short body is stored");
        expect(uploads.put(0, &format!("bytes 199999-{}/*", all - 1), &media[199_999..]).await, 200, "").await;

        let object = expect(uploads.end(1, end_of(&media)).await, 201, "").await;
        assert_eq!((object["bytes"].as_u64(), object["name"].as_str()), (Some(all as u64), Some("tone.wav")));
        assert_eq!(uploads.stands(0).await, Some((all as u64, true)));
        assert_eq!(expect(uploads.end(0, end_of(&media)).await, 201, "").await, object, "the same answer again");
        expect(uploads.put(0, &format!("bytes {all}-{all}/*"), b"x").await, 409, "wrong_offset").await;

        let job = json!({ "task": "loudness", "input": { "object": object } });
        let request = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url(0))).json(&job);
        let accepted = expect(Uploads::answer(request).await, 202, "").await;
        let events = format!("{}/v1/jobs/{}/events", cluster.url(1), accepted["job_id"].as_str().unwrap());
        let events = Uploads::answer(reqwest::Client::new().get(events)).await.text().await.unwrap();
        assert!(events.contains("event: completed"), "{events}");
    })
    .await;
}

#[actix_web::test]
async fn wrong_ends_and_given_up_uploads() {
    on_both(1, &[("RELAY__INPUTS__UPLOAD_BYTES_MAX", "1000000")], async |cluster| {
        let uploads = Uploads { cluster, id: UploadId::new(12) };
        let media = wav(20);
        expect(uploads.put(0, "", &media).await, 200, "").await;
        let mut end = end_of(&media);
        for (field, wrong) in
            [("sha256", json!("AB")), ("bytes", json!(0)), ("name", json!("a\nb")), ("media_type", json!(""))]
        {
            let right = end[field].take();
            end[field] = wrong;
            let code = if field == "bytes" { "empty_media" } else { "invalid_field" };
            expect(uploads.end(0, end.clone()).await, 400, code).await;
            end[field] = right;
        }
        let mut longer = end_of(&media);
        longer["bytes"] = json!(media.len() + 1);
        expect(uploads.end(0, longer).await, 409, "wrong_offset").await;
        expect(uploads.end(0, json!({ "bytes": media.len(), "sha256": "0".repeat(64) })).await, 400, "digest_mismatch")
            .await;
        assert_eq!(uploads.stands(0).await, None, "what is damaged is removed");

        expect(uploads.put(0, "", &media).await, 200, "").await;
        let delete = || Uploads::answer(reqwest::Client::new().delete(uploads.url(0)));
        assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
        expect(delete().await, 404, "unknown_upload").await;
        assert_eq!(cluster.count("parts").await, 0);

        expect(uploads.put(0, "bytes 0-999/1000001", &[7; 1_000]).await, 413, "too_large").await;
        expect(uploads.put(0, "", &vec![7; 1_000_001]).await, 413, "too_large").await;
        for range in ["bytes 5-4/9", "bytes 0-9/9", "0-1/2", "bytes a-b/c", "bytes 0-1"] {
            expect(uploads.put(0, range, b"xx").await, 400, "bad_request").await;
        }
        let no_id = reqwest::Client::new().put(format!("{}/v1/uploads/mine", cluster.url(0))).body("x");
        expect(Uploads::answer(no_id).await, 400, "invalid_field").await;
    })
    .await;
}

/// A body that breaks off leaves what came of it.
#[actix_web::test]
async fn a_body_that_breaks_off_is_stored_as_far_as_it_came() {
    on_both(1, &[], async |cluster| {
        let uploads = Uploads { cluster, id: UploadId::new(13) };
        let media = wav(20);
        let mut stream = TcpStream::connect(cluster.address(0)).await.unwrap();
        let head = format!(
            "PUT /v1/uploads/{} HTTP/1.1\r\nHost: relay\r\nContent-Length: {}\r\n\r\n",
            uploads.id,
            media.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&media[..300_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        wait_for("the begin of the body", async || uploads.stands(0).await.is_some()).await;
        let (next, complete) = uploads.stands(0).await.unwrap();
        assert!(next > 0 && next <= 300_000 && !complete, "byte {next} comes next");
        let range = format!("bytes {next}-{}/{}", media.len() - 1, media.len());
        expect(uploads.put(0, &range, &media[next as usize..]).await, 200, "").await;
        expect(uploads.end(0, end_of(&media)).await, 201, "").await;
    })
    .await;
}
