//! A job's events over HTTP: whole, from a place, live, and who may not have them.

use relay_protocol::EventKind::{Accepted, Completed, Partial, Progress, Started};
use reqwest::Method;
use serde_json::json;

use crate::api::{answer, expect_refusal, expect_sound, kinds};
use crate::cluster::{Cluster, PATIENCE};
use crate::crash::submit_long;
use crate::processes::wav;

#[actix_web::test]
async fn a_stream_opened_early_sees_each_event_as_it_happens() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    let mut seen = vec![stream.expect(Accepted).await, stream.expect(Started).await];
    let call = calls.next().await;
    // The next event is only made once the one before was seen: nothing is held back until the end.
    call.progress(0.5).await;
    seen.push(stream.expect(Progress).await);
    assert_eq!(seen[2].fraction, Some(0.5));
    call.partial("one").await;
    seen.push(stream.expect(Partial).await);
    call.partial("two").await;
    seen.push(stream.expect(Partial).await);
    assert_eq!(seen[4].partial, Some(json!({ "text": "two" })));
    call.complete();
    seen.push(stream.expect(Completed).await);
    assert!(stream.next().await.is_none(), "the stream goes on after the terminal event");
    expect_sound(&seen);
    assert_eq!(seen[5].last_partial_seq, Some(seen[4].seq));
    assert_eq!(seen[5].result, Some(json!({ "text": "done" })));
    cluster.stop().await;
}

#[actix_web::test]
async fn a_stream_goes_on_after_the_last_event_id() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let call = calls.next().await;
    call.progress(0.25).await;
    call.partial("one").await;
    call.complete();
    api.wait_state(&job, "completed").await;
    let whole = api.life(&job).await;
    assert_eq!(kinds(&whole), [Accepted, Started, Progress, Partial, Completed]);
    assert_eq!(api.events(&job, Some(0)).await.rest().await, whole);
    let (ended, before) = whole.split_last().unwrap();
    for (at, event) in before.iter().enumerate() {
        assert_eq!(api.events(&job, Some(event.seq)).await.rest().await, whole[at + 1..], "after {:?}", event.event);
    }
    let resume = async |after_seq: u64| {
        let request = api.request(Method::GET, &format!("/v1/jobs/{job}/events"));
        let request = request.header("Last-Event-ID", after_seq.to_string());
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    // Nothing is left to come: no stream that stays open for ever, and a browser must not ask again.
    assert_eq!(resume(ended.seq).await, (204, String::new()));
    // Who was told of a later attempt has not heard of the end yet.
    let rest = api.events(&job, Some(ended.seq + 1)).await.rest().await;
    assert_eq!(rest, std::slice::from_ref(ended));
    cluster.stop().await;
}

#[actix_web::test]
async fn a_stream_that_goes_on_within_a_running_job_sees_the_rest() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut first = api.events(&job, None).await;
    first.expect(Accepted).await;
    let started = first.expect(Started).await;
    let call = calls.next().await;
    drop(first);
    let second = api.events(&job, Some(started.seq)).await;
    call.complete();
    assert_eq!(kinds(&second.rest().await), [Completed]);
    cluster.stop().await;
}

#[actix_web::test]
async fn what_cannot_be_streamed_is_refused() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    calls.next().await.complete();
    let unknown = "01a209ac-0cbb-70fb-8123-456789abcdef";
    expect_refusal(api.get(&format!("/v1/jobs/{unknown}/events")).await, 404, "unknown_job");
    expect_refusal(api.get(&format!("/v1/jobs/{unknown}")).await, 404, "unknown_job");
    let path = format!("/v1/jobs/{job}/events");
    for bad in ["", "abc", "-1", "1.5", "18446744073709551616", "1 2"] {
        let request = api.request(Method::GET, &path).header("Last-Event-ID", bad);
        let message = expect_refusal(answer(request).await, 400, "bad_request");
        assert!(message.contains("Last-Event-ID"), "{bad:?}: {message}");
    }
    let (status, body) = api.get("/v1/jobs/not-an-id/events").await;
    assert!((400..500).contains(&status), "{status} {body}");
    assert!(body["error"]["code"].is_string(), "{body}");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_cluster_that_stops_ends_its_streams() {
    let (cluster, calls) = Cluster::staged(&[("RELAY__NODE__DRAIN_TIMEOUT_MS", "500")]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    stream.expect(Accepted).await;
    stream.expect(Started).await;
    let _runs_on = calls.next().await;
    let (rest, ()) = tokio::join!(stream.rest(), cluster.stop());
    assert_eq!(rest, []);
}

#[actix_web::test]
async fn progress_against_the_size_of_the_media_says_when_it_will_be_done() {
    // Some seconds of work for the real signal processing.
    let cluster = Cluster::start(&[], |_| {}).await;
    let api = cluster.api();
    let job = submit_long(&api, &wav(600)).await;
    let mut stream = api.events(&job, None).await;
    let (mut told, mut ended) = (Vec::new(), false);
    while let Some(event) = stream.next().await {
        ended |= event.event == Completed;
        if let Some(eta) = event.eta {
            assert!(event.event == Progress && eta > event.at, "{event:?}");
            told.push(event.fraction.unwrap());
        }
    }
    assert!(ended && !told.is_empty(), "no event said when it will be done");
    assert!(told.iter().all(|fraction| (0.0..1.0).contains(fraction)), "{told:?}");
    cluster.stop().await;
}

#[actix_web::test]
async fn progress_of_unknown_work_does_not_say_when_it_will_be_done() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    stream.expect(Accepted).await;
    let call = calls.next().await;
    stream.expect(Started).await;
    call.progress(0.1).await;
    assert_eq!(stream.expect(Progress).await.eta, None);
    // Long enough that measured work would have told.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    call.progress(0.6).await;
    assert_eq!(stream.expect(Progress).await.eta, None);
    call.complete();
    stream.expect(Completed).await;
    cluster.stop().await;
}
