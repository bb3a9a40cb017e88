//! What a client is told that has nothing to go on with: never silence.

use relay_log::port::TopicPartition;
use relay_protocol::EventKind::{Accepted, Completed, Started};
use relay_protocol::event::JobStatus;
use relay_protocol::hello::ErrorV1;
use relay_protocol::id::REPLY_PARTITIONS_MAX;
use relay_protocol::session::{NoticeV1, ResumeV1, ResumedV1, WatchV1};
use relay_protocol::{Event, JobId, Message as _, topics};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::api::kinds;
use crate::cluster::{Cluster, PATIENCE, records, two_nodes};
use crate::stage::Calls;
use crate::wire::{Wire, new_id, submit_of};

/// A job that has completed: its events after the receipt.
async fn completed(wire: &mut Wire, calls: &Calls, number: u64) -> (JobId, [Event; 2]) {
    let id = new_id(wire, number);
    wire.submit(submit_of(number, id)).await;
    let started = wire.event().await;
    calls.next().await.complete();
    let end = wire.event().await;
    assert_eq!((started.event, end.event), (Started, Completed));
    (id, [started, end])
}

/// Resumes one job and returns what is told of it.
async fn notice(wire: &mut Wire, resume_token: &str, job: (JobId, u64)) -> (NoticeV1, Option<JobStatus>) {
    wire.say(&ResumeV1 { request: 9, resume_token: resume_token.to_owned(), jobs: vec![job] }, b"").await;
    assert_eq!(wire.expect::<ResumedV1>().await.0.jobs, 1);
    let (notice, payload) = wire.expect::<NoticeV1>().await;
    assert_eq!((notice.request, notice.job_id), (9, job.0));
    (notice, serde_json::from_slice(&payload).ok())
}

/// Deletes the events of the job's partition before the job's `kind` event, or all of them.
pub(crate) async fn delete_before(cluster: &Cluster, job_id: JobId, kind: Option<&str>) {
    let records = records(&*cluster.log, topics::EVENTS).await;
    let event = |value: &bytes::Bytes| serde_json::from_slice::<Value>(value).unwrap();
    let of_job =
        |record: &&relay_log::port::LogRecord| event(record.value.as_ref().unwrap())["job_id"] == job_id.to_string();
    let of_job: Vec<_> = records.iter().filter(of_job).collect();
    let at: TopicPartition = of_job[0].at.clone();
    let offset = match kind {
        Some(kind) => {
            of_job.iter().find(|record| event(record.value.as_ref().unwrap())["event"] == kind).unwrap().offset
        }
        None => cluster.log.watermarks(&at).await.unwrap().high,
    };
    cluster.log.delete_before(&at, offset).await.unwrap();
}

/// Waits until the job view shows the job's end.
pub(crate) async fn wait_view(cluster: &Cluster, job_id: JobId) {
    let began = Instant::now();
    loop {
        let (_, body) = cluster.api().get(&format!("/v1/jobs/{job_id}/view")).await;
        if body["state"] == "completed" {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the view does not show it: {body}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[actix_web::test]
async fn a_job_that_has_ended_for_the_client_is_told_with_its_state() {
    let (cluster, calls, [one, two]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let (id, [started, end]) = completed(&mut wire, &calls, 1).await;
    let token = wire.welcome.resume_token.clone();
    wire.break_off();
    let mut wire = Wire::open(&two, None).await;
    let (told, status) = notice(&mut wire, &token, (id, end.seq)).await;
    assert_eq!((told.code.as_str(), told.goes_on), ("already_ended", false));
    assert_eq!(status.unwrap().last, end, "the state with its result");
    wire.say(&WatchV1 { request: 10, job_id: id, after_seq: end.seq }, b"").await;
    assert_eq!(wire.expect::<NoticeV1>().await.0.code, "already_ended");
    // What is left comes, however often it is asked for.
    for _ in 0..2 {
        wire.say(&WatchV1 { request: 11, job_id: id, after_seq: started.seq }, b"").await;
        assert_eq!(wire.event().await, end);
    }
    wire.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_job_that_is_not_there_is_told_to_be_unknown() {
    let (cluster, _calls, [one, _]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let token = wire.welcome.resume_token.clone();
    // A minute ago: no receipt of it can be on its way.
    let made = new_id(&wire, 1).made_at_ms().unwrap() - 60_000;
    let id = JobId::new(made, wire.welcome.reply_partition, 1);
    let (told, status) = notice(&mut wire, &token, (id, 0)).await;
    assert_eq!((told.code.as_str(), told.goes_on, status), ("unknown_job", false, None));
    let (told, _) = notice(&mut wire, &token, (id, 7 << 32)).await;
    assert_eq!((told.code.as_str(), told.goes_on), ("unknown_job", false));
    // A client that was shown the receipt may be right: what comes is sent.
    let (told, _) = notice(&mut wire, &token, (id, 1)).await;
    assert_eq!((told.code.as_str(), told.goes_on, told.retryable), ("unknown_job", true, true));
    wire.say(&WatchV1 { request: 10, job_id: id, after_seq: 0 }, b"").await;
    let (error, _) = wire.expect::<ErrorV1>().await;
    assert_eq!((error.request, error.code.as_str()), (10, "unknown_job"));
    wire.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_token_that_is_none_is_refused_and_the_session_goes_on() {
    let (cluster, calls, [one, _]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let (id, [started, end]) = completed(&mut wire, &calls, 1).await;
    for resume_token in ["", "r1.AAAA.AAAA", "01a209ac-0cbb-70fb-8123-456789abcdef"] {
        wire.say(&ResumeV1 { request: 3, resume_token: resume_token.to_owned(), jobs: vec![(id, 0)] }, b"").await;
        let (error, _) = wire.expect::<ErrorV1>().await;
        assert_eq!((error.request, error.code.as_str(), error.retryable), (3, "invalid_resume_token", false));
    }
    wire.say(&WatchV1 { request: 4, job_id: id, after_seq: started.seq }, b"").await;
    assert_eq!(wire.event().await, end);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_past_older_than_retention_is_told_and_what_is_left_follows() {
    let (cluster, calls, [one, two]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let (id, [started, end]) = completed(&mut wire, &calls, 1).await;
    let token = wire.welcome.resume_token.clone();
    wire.break_off();
    wait_view(&cluster, id).await;
    delete_before(&cluster, id, Some("completed")).await;
    let mut wire = Wire::open(&two, None).await;
    // It lacks `started`, which is gone.
    let (told, _) = notice(&mut wire, &token, (id, 1)).await;
    assert_eq!((told.code.as_str(), told.goes_on), ("resume_expired", true));
    assert_eq!(wire.event().await, end);
    wire.say(&WatchV1 { request: 10, job_id: id, after_seq: end.seq }, b"").await;
    assert_eq!(wire.expect::<NoticeV1>().await.0.code, "already_ended", "it lacks nothing");
    delete_before(&cluster, id, None).await;
    let (told, status) = notice(&mut wire, &token, (id, started.seq)).await;
    assert_eq!((told.code.as_str(), told.goes_on), ("resume_expired", false));
    let status = status.expect("the view knows how it ended");
    assert_eq!((status.job_id, status.state.as_str(), status.last.event), (id, "completed", Completed));
    wire.say(&WatchV1 { request: 11, job_id: id, after_seq: 0 }, b"").await;
    assert_eq!(wire.expect::<NoticeV1>().await.0.code, "resume_expired");
    // What nobody knows of.
    let unknown = JobId::new(id.made_at_ms().unwrap(), id.reply_partition(REPLY_PARTITIONS_MAX), 99);
    let (told, status) = notice(&mut wire, &token, (unknown, started.seq)).await;
    assert_eq!((told.code.as_str(), told.goes_on, status), ("resume_expired", false, None));
    wire.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn resumes_that_follow_each_other_at_once_do_not_mix() {
    let (cluster, calls, [one, _]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let (id, [started, end]) = completed(&mut wire, &calls, 1).await;
    let resume_token = wire.welcome.resume_token.clone();
    for round in 1..=50 {
        // What the first brings must not be taken for what the second does: the client would miss what lies between.
        for (request, after_seq) in [(2 * round, started.seq), (2 * round + 1, 0)] {
            let (resume_token, jobs) = (resume_token.clone(), vec![(id, after_seq)]);
            wire.say(&ResumeV1 { request, resume_token, jobs }, b"").await;
        }
        loop {
            let frame = wire.frame().await;
            if frame.kind == ResumedV1::KIND && frame.head::<ResumedV1>().unwrap().request == 2 * round + 1 {
                break;
            }
        }
        let came = [wire.event().await, wire.event().await, wire.event().await];
        assert_eq!(kinds(&came), [Accepted, Started, Completed], "round {round}");
        assert_eq!((&came[1], &came[2]), (&started, &end));
    }
    wire.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn the_sdk_is_told_how_a_job_ended_whose_events_are_gone() {
    let (cluster, calls, [one, _]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let (id, [started, _]) = completed(&mut wire, &calls, 1).await;
    wait_view(&cluster, id).await;
    delete_before(&cluster, id, None).await;
    let client = cluster.client(None).await;
    let mut handle = client.watch(id, started.seq).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, handle.next_event()).await.expect("an answer in time").unwrap_err();
    let client_cli::ClientError::Rejected(error) = error else { panic!("{error}") };
    assert_eq!(error.code, "resume_expired");
    assert!(error.message.contains("ended as completed"), "{error}");
    client.close().await;
    cluster.stop().await;
}
