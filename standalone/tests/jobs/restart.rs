//! Restarts in order: what was there before is there afterwards, and what had not ended goes on.

use relay_protocol::EventKind::{Accepted, Completed, Restarted, Started};
use serde_json::json;

use crate::api::{expect_sound, kinds};
use crate::cluster::Cluster;

#[actix_web::test]
async fn the_events_of_an_ended_job_outlive_a_restart() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let call = calls.next().await;
    call.progress(0.5).await;
    call.partial("one").await;
    call.complete();
    api.wait_state(&job, "completed").await;
    let before = api.life(&job).await;
    let status = api.get(&format!("/v1/jobs/{job}")).await;
    let cluster = cluster.restart().await;
    let api = cluster.api();
    assert_eq!(api.life(&job).await, before);
    assert_eq!(api.events(&job, Some(before[2].seq)).await.rest().await, before[3..]);
    assert_eq!(api.get(&format!("/v1/jobs/{job}")).await, status);
    assert!(calls.is_empty().await, "the job ran again");
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_that_runs_when_the_cluster_stops_ends_first() {
    let (cluster, calls) = Cluster::staged(&[]).await;
    let api = cluster.api();
    let job = api.submit(json!({})).await;
    let call = calls.next().await;
    // The stop waits for what runs: the call ends while the cluster is going down.
    let ((), cluster) = tokio::join!(
        async {
            api.wait_gone().await;
            call.complete();
        },
        cluster.restart()
    );
    let life = cluster.api().life(&job).await;
    assert_eq!(kinds(&life), [Accepted, Started, Completed]);
    assert!(calls.is_empty().await, "the job ran again");
    cluster.stop().await;
}

#[actix_web::test]
async fn jobs_that_run_or_wait_when_the_cluster_stops_go_on_after_it() {
    const RUNNING: usize = 24;
    let (running_max, drain) = (RUNNING.to_string(), ("RELAY__NODE__DRAIN_TIMEOUT_MS", "200"));
    let (cluster, calls) = Cluster::staged(&[("RELAY__LANES__RUNNING_MAX", &running_max), drain]).await;
    let api = cluster.api();
    let (mut running, mut waiting, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNNING {
        running.push(api.submit(json!({})).await);
        first.push(calls.next().await);
    }
    for _ in 0..RUNNING {
        waiting.push(api.submit(json!({})).await);
    }
    let cluster = cluster.restart().await;
    for call in &first {
        call.wait_dropped().await;
    }
    let mut again = Vec::new();
    for _ in 0..RUNNING {
        again.push(calls.next().await);
    }
    // The node had said that it gave them up: none is suspected of its end, they run side by side.
    let side_by_side = again.iter().filter(|call| running.contains(&call.job_id.to_string())).count();
    assert!(side_by_side > 1, "{side_by_side} of them run at a time");
    again.into_iter().for_each(crate::stage::Running::complete);
    for _ in 0..RUNNING {
        calls.next().await.complete();
    }
    let api = cluster.api();
    for (jobs, attempt) in [(&running, 2), (&waiting, 1)] {
        for job in jobs {
            let life = api.life(job).await;
            let again = [Accepted, Started, Restarted, Started, Completed];
            let expected = if attempt == 2 { &again[..] } else { &[Accepted, Started, Completed] };
            assert_eq!((kinds(&life).as_slice(), life.last().unwrap().attempt), (expected, attempt), "{life:#?}");
            let mut written = cluster.written(job).await;
            written.sort_by_key(|event| event.seq);
            expect_sound(&written);
        }
    }
    assert!(calls.is_empty().await, "a job ran too often");
    cluster.stop().await;
}
