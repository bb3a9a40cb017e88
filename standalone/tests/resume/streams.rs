//! The same rules for server-sent events and their `Last-Event-ID`.

use relay_protocol::EventKind::{Accepted, Completed, Partial, Started};
use relay_protocol::JobId;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::api::Api;
use crate::cluster::two_nodes;
use crate::told::{delete_before, wait_view};

async fn answer(api: &Api, job_id: &str, after: Option<u64>) -> Response {
    let mut request = api.request(Method::GET, &format!("/v1/jobs/{job_id}/events"));
    if let Some(after) = after {
        request = request.header("Last-Event-ID", after.to_string());
    }
    request.send().await.unwrap()
}

async fn refusal(api: &Api, job_id: &str, after: Option<u64>) -> (u16, Value) {
    let answer = answer(api, job_id, after).await;
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[actix_web::test]
async fn a_stream_goes_on_at_the_other_node_when_its_own_goes_down() {
    let (mut cluster, calls, [one, two]) = two_nodes(&[]).await;
    let [one, two] = [one, two].map(|address| Api::new(format!("http://{address}"), None));
    let id = one.submit(json!({})).await;
    let mut stream = two.events(&id, None).await;
    stream.expect(Accepted).await;
    let started = stream.expect(Started).await;
    let call = calls.next().await;
    call.partial("one").await;
    let partial = stream.expect(Partial).await;
    // The node of the stream goes; that of the job may be the same, and then the other runs it again.
    let going = cluster.standalone.nodes.pop().unwrap();
    let (rest, ()) = tokio::join!(stream.rest(), going.stop());
    assert!(rest.iter().all(|event| event.seq > partial.seq), "{rest:?}");
    let last = rest.last().map_or(partial.seq, |event| event.seq);
    let mut seen: Vec<_> = [started].into_iter().chain(rest).collect();
    let rerun = calls.try_next().await;
    let ends = async {
        // Whichever call still counts.
        let call = match rerun {
            Some(rerun) => rerun,
            None if call.dropped.is_cancelled() => calls.next().await,
            None => call,
        };
        call.complete();
    };
    let (more, ()) = tokio::join!(async { one.events(&id, Some(last)).await.rest().await }, ends);
    seen.extend(more);
    assert_eq!(seen.last().unwrap().event, Completed);
    let durable = |events: Vec<relay_protocol::Event>| -> Vec<u64> {
        events.iter().filter(|event| event.event != Partial).map(|event| event.seq).collect()
    };
    assert_eq!(durable(seen), durable(one.life(&id).await)[1..], "each durable event once");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_stream_tells_what_is_gone_and_what_has_ended() {
    let (cluster, calls, _) = two_nodes(&[]).await;
    let api = cluster.api();
    let id = api.submit(json!({})).await;
    calls.next().await.complete();
    api.wait_state(&id, "completed").await;
    let whole = api.life(&id).await;
    let [_, started, end] = &whole[..] else { panic!("{whole:?}") };
    assert_eq!(answer(&api, &id, Some(end.seq)).await.status().as_u16(), 204);
    let job_id: JobId = id.parse().unwrap();
    wait_view(&cluster, job_id).await;
    delete_before(&cluster, job_id, Some("completed")).await;
    assert_eq!(answer(&api, &id, Some(end.seq)).await.status().as_u16(), 204);
    let text = answer(&api, &id, Some(1)).await.text().await.unwrap();
    let blocks: Vec<&str> = text.trim_end().split("\n\n").collect();
    assert!(blocks[0].starts_with("event: resume_expired\ndata: {"), "{text}");
    assert!(blocks[1].starts_with(&format!("id: {}\nevent: completed\n", end.seq)), "{text}");
    assert_eq!(blocks.len(), 2, "{text}");
    delete_before(&cluster, job_id, None).await;
    let (status, body) = refusal(&api, &id, Some(started.seq)).await;
    assert_eq!((status, &body["error"]["code"]), (410, &json!("resume_expired")), "{body}");
    assert_eq!(body["status"]["state"], "completed");
    let unknown = JobId::new(job_id.made_at_ms().unwrap(), 0, 99).to_string();
    let (status, body) = refusal(&api, &unknown, None).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_job")), "{body}");
    cluster.stop().await;
}
