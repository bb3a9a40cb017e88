//! The way of a large job through either store: its input there, its result back, and where both lie.

use client_cli::{JobInput, JobRequest};

use crate::cluster::{completed, loudness, wav};
use crate::s3::on_both;

#[actix_web::test]
async fn inputs_and_results_go_through_the_store() {
    on_both(2, &[("RELAY__INPUTS__INLINE_BYTES_MAX", "1000")], async |cluster| {
        for node in [0, 1] {
            let client = cluster.client(&cluster.url(node)).await;
            let media = wav(60);
            let handle = client.submit(loudness(media)).await.expect("the job is accepted");
            let event = completed(handle).await;
            assert!(event.result.is_some(), "{event:?}");
            // A picture of a picture is a result that lies in the store.
            let picture = std::fs::read("../fixtures/images/picture.png").unwrap();
            let job = JobRequest::new("thumbnail", JobInput::Bytes(picture.into()));
            let handle = client.submit(job).await.expect("the job is accepted");
            let job_id = handle.job_id();
            let event = completed(handle).await;
            let bytes = event.result.as_ref().and_then(|result| result["media"]["bytes"].as_u64()).unwrap();
            // The other node serves it too, over a session and over HTTP.
            let other = cluster.client(&cluster.url(1 - node)).await;
            let mut fetched = Vec::new();
            assert_eq!(other.fetch(job_id, &mut fetched).await.expect("the media comes"), bytes);
            let url = format!("{}/v1/jobs/{job_id}/result", cluster.url(1 - node));
            let over_http = reqwest::get(url).await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
            assert!(over_http[..] == fetched[..] && fetched.len() as u64 == bytes);
            other.close().await;
            client.close().await;
        }
        assert_eq!(
            (cluster.count("uploads").await, cluster.count("used").await, cluster.count("results").await),
            (4, 4, 2),
            "{:?}",
            cluster.objects().await
        );
        assert_eq!(cluster.count("parts").await, 0, "finished uploads leave no parts");
    })
    .await;
}

/// A form's file goes the same way, and leaves nothing if the job is refused.
#[actix_web::test]
async fn a_form_of_a_refused_job_leaves_nothing() {
    on_both(1, &[("RELAY__INPUTS__INLINE_BYTES_MAX", "1000")], async |cluster| {
        for (task, status, left) in [("sing", 400, 0), ("loudness", 202, 1)] {
            let part = reqwest::multipart::Part::bytes(wav(200)).file_name("tone.wav");
            let form = reqwest::multipart::Form::new().part("file", part).text("task", task);
            let request = reqwest::Client::new().post(format!("{}/v1/jobs", cluster.url(0))).multipart(form);
            assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{task}");
            assert_eq!(cluster.count("uploads").await, left, "{task}");
        }
    })
    .await;
}
