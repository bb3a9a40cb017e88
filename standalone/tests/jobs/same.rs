//! One job, submitted twice: by its key, or by its id.

use relay_protocol::EventKind::{Accepted, Completed, Started};
use relay_protocol::event::Place;
use serde_json::json;

use crate::api::kinds;
use crate::cluster::Cluster;
use crate::tenants::entry;

#[actix_web::test]
async fn a_key_belongs_to_its_tenant() {
    let scopes = "jobs:write+jobs:read";
    let tokens = [entry("ann", "red", scopes), entry("bob", "blue", scopes)].join(",");
    let (cluster, calls) = Cluster::staged(&[("RELAY__AUTH__TOKENS", &tokens)]).await;
    let (ann, bob) = (cluster.api_of("ann-token"), cluster.api_of("bob-token"));
    let anns = ann.submit(json!({ "idempotency_key": "one" })).await;
    let bobs = bob.submit(json!({ "idempotency_key": "one" })).await;
    assert_ne!(anns, bobs);
    for _ in 0..2 {
        calls.next().await.complete();
    }
    assert_eq!(ann.life(&anns).await.last().unwrap().event, Completed);
    assert_eq!(bob.life(&bobs).await.last().unwrap().event, Completed);
    cluster.stop().await;
}

/// Submits the job once more; where the second record lies.
async fn submit_again(cluster: &Cluster, job: &str) -> Place {
    let (status, body) = cluster.api().post(json!({ "id": job })).await;
    assert_eq!((status, body["job_id"].as_str()), (202, Some(job)), "{body}");
    serde_json::from_value(body["last"]["place"].clone()).expect("a place")
}

#[actix_web::test]
async fn who_watches_a_job_that_is_submitted_again_sees_one_life() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let mut stream = api.events(&job, None).await;
    stream.expect(Accepted).await;
    stream.expect(Started).await;
    let call = calls.next().await;
    let place = submit_again(&cluster, &job).await;
    call.complete();
    stream.expect(Completed).await;
    assert!(stream.next().await.is_none());
    cluster.work_off(&calls, &place).await;
    assert_eq!(kinds(&api.life(&job).await), [Accepted, Started, Completed]);
    cluster.stop().await;
}

#[actix_web::test]
async fn an_ended_job_that_is_submitted_again_keeps_its_life() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    calls.next().await.complete();
    api.wait_state(&job, "completed").await;
    let before = api.life(&job).await;
    let place = submit_again(&cluster, &job).await;
    cluster.work_off(&calls, &place).await;
    assert_eq!(api.life(&job).await, before);
    assert_eq!(api.get(&format!("/v1/jobs/{job}")).await.1["state"], "completed");
    cluster.stop().await;
}
