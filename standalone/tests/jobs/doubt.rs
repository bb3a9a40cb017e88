//! A session on the node that runs its job is told of events before it reads them from the log, but only of what is
//! certain: while the fate of an append or of a commit is unknown, nothing that follows may overtake it.

use relay_protocol::EventKind::{self, Accepted, Completed, Partial, Progress, Restarted, Retrying, Started};
use relay_protocol::{Event, JobId};
use tokio_util::sync::CancellationToken;

use crate::api::kinds;
use crate::cluster::Cluster;
use crate::doubtful_log::{DoubtfulLog, Fate, Script};
use crate::stage::{Calls, Running, Stage};
use crate::tenants::entry;
use crate::wire::{Wire, new_id, submit_of};

/// Jobs that are submitted at most until one of them is another node's.
const JOBS_MAX: u64 = 100;

/// A cluster of so many nodes whose log follows `script`.
async fn cluster(script: &Script, nodes: u32, env: &[(&str, &str)]) -> (Cluster, Calls) {
    let (stage, calls) = Stage::new();
    let change = |options: &mut standalone::Options| {
        options.builtin = Some(stage);
        options.nodes = nodes;
    };
    (Cluster::start_over(env, change, |log| DoubtfulLog::new(log, script)).await, calls)
}

/// A session with the first node.
async fn session(cluster: &Cluster, token: Option<&str>) -> Wire {
    Wire::open(&cluster.standalone.nodes[0].addr.to_string(), token).await
}

/// A cluster of one node, a session with it, and the session's first job.
async fn start(script: &Script) -> (Cluster, Calls, Wire, JobId) {
    let (cluster, calls) = cluster(script, 1, &[("RELAY__RETRY__DELAY_MS", "1")]).await;
    let mut wire = session(&cluster, None).await;
    let job = new_id(&wire, 1);
    wire.submit(submit_of(1, job)).await;
    (cluster, calls, wire, job)
}

/// What was written about a job after its receipt: each event once, in order.
async fn written(cluster: &Cluster, job: JobId) -> Vec<Event> {
    let mut written = cluster.written(&job.to_string()).await;
    // Beside the way, so that it may lie anywhere.
    written.retain(|event| event.event != Accepted);
    // What was in doubt may be there twice, and is the same.
    written.dedup();
    assert!(written.windows(2).all(|two| two[0].seq < two[1].seq), "written twice, or out of order: {written:#?}");
    written
}

#[actix_web::test]
async fn what_is_certain_is_told_before_the_log_is_read_and_not_again() {
    let script = Script::new();
    let (cluster, calls, mut wire, job) = start(&script).await;
    let call = calls.next().await;
    let mut seen = vec![wire.event().await];
    call.progress(0.5).await;
    seen.push(wire.event().await);
    call.partial("one").await;
    seen.push(wire.event().await);
    assert_eq!(kinds(&seen), [Started, Progress, Partial]);
    script.follow().await;
    wire.expect_silence().await;
    call.complete();
    seen.push(wire.event().await);
    wire.expect_silence().await;
    seen.retain(|event| matches!(event.event, Started | Completed));
    assert_eq!(seen, written(&cluster, job).await);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_terminal_event_is_told_before_the_log_is_read_and_not_again() {
    let script = Script::new();
    let (cluster, calls, mut wire, job) = start(&script).await;
    calls.next().await.complete();
    let seen = [wire.event().await, wire.event().await];
    script.follow().await;
    wire.expect_silence().await;
    assert_eq!(kinds(&seen), [Started, Completed]);
    assert_eq!(seen[..], written(&cluster, job).await);
    cluster.stop().await;
}

#[actix_web::test]
async fn who_began_to_watch_later_is_told_by_the_log_alone() {
    let script = Script { hides_past: true, ..Script::new() };
    let (cluster, calls, mut wire, job) = start(&script).await;
    assert_eq!(wire.event().await.event, Started);
    let mut late = cluster.api().events(&job.to_string(), None).await;
    late.expect(Accepted).await;
    calls.next().await.complete();
    // The early one and the late one would be told at the same time.
    assert_eq!(wire.event().await.event, Completed);
    script.follow().await;
    assert_eq!(late.rest().await, written(&cluster, job).await);
    cluster.stop().await;
}

/// The first event of this kind is in doubt. While the log is not read the session sees `before` and nothing else; then
/// what was written, which is `all`.
async fn expect_the_log(doubt: (EventKind, Fate), before: &[EventKind], all: &[EventKind]) {
    let script = Script::append_in_doubt(doubt.0, doubt.1);
    let (cluster, calls, mut wire, job) = start(&script).await;
    if doubt.0 == Retrying {
        calls.next().await.fail();
    }
    calls.next().await.complete();
    cluster.api().wait_state(&job.to_string(), "completed").await;
    assert_eq!(*script.append.lock().unwrap(), None, "nothing was in doubt");
    let mut seen = Vec::new();
    for _ in before {
        seen.push(wire.event().await);
    }
    assert_eq!(kinds(&seen), before, "{doubt:?}");
    wire.expect_silence().await;
    script.follow().await;
    while seen.last().is_none_or(|event| !event.event.is_terminal()) {
        seen.push(wire.event().await);
    }
    wire.expect_silence().await;
    let written = written(&cluster, job).await;
    assert_eq!(kinds(&written), all, "{doubt:?}");
    assert_eq!(seen, written, "{doubt:?}");
    assert!(calls.is_empty().await, "the job ran again");
    cluster.stop().await;
}

#[actix_web::test]
async fn after_a_started_event_in_doubt_the_log_alone_is_told() {
    expect_the_log((Started, Fate::Written), &[], &[Started, Completed]).await;
    expect_the_log((Started, Fate::Lost), &[], &[Started, Completed]).await;
}

#[actix_web::test]
async fn after_a_retrying_event_in_doubt_the_log_alone_is_told() {
    expect_the_log((Retrying, Fate::Written), &[Started], &[Started, Retrying, Started, Completed]).await;
    expect_the_log((Retrying, Fate::Lost), &[Started], &[Started, Started, Completed]).await;
}

/// A job that runs on the other node, and its call.
async fn job_elsewhere(cluster: &Cluster, calls: &Calls, wire: &mut Wire) -> (JobId, Running) {
    for number in 1..=JOBS_MAX {
        let job = new_id(wire, number);
        wire.submit(submit_of(number, job)).await;
        let call = calls.next().await;
        if written(cluster, job).await[0].node.as_deref() == Some("node-2") {
            return (job, call);
        }
        call.complete();
        assert_eq!(kinds(&[wire.event().await, wire.event().await]), [Started, Completed]);
    }
    panic!("{JOBS_MAX} jobs, and none on the other node");
}

#[actix_web::test]
async fn of_a_job_that_began_elsewhere_the_log_alone_is_told() {
    let script = Script::new();
    let (mut cluster, calls) = cluster(&script, 2, &[("RELAY__NODE__DRAIN_TIMEOUT_MS", "1")]).await;
    let mut wire = session(&cluster, None).await;
    let (job, _never_ends) = job_elsewhere(&cluster, &calls, &mut wire).await;
    cluster.standalone.nodes.pop().expect("a second node").stop().await;
    let call = calls.next().await;
    assert_eq!(call.job_id, job);
    call.complete();
    cluster.api().wait_state(&job.to_string(), "completed").await;
    wire.expect_silence().await;
    script.follow().await;
    let seen = [wire.event().await, wire.event().await, wire.event().await, wire.event().await];
    wire.expect_silence().await;
    assert_eq!(kinds(&seen), [Started, Restarted, Started, Completed]);
    assert_eq!(seen[..], written(&cluster, job).await);
    cluster.stop().await;
}

/// The first commit comes to nothing, and the second waits: until it has succeeded nobody hears of an end.
async fn expect_an_end_only_once_committed(fate: Fate) {
    let script = Script { let_commit: CancellationToken::new(), ..Script::commit_in_doubt(fate) };
    // Whatever there is to read is read at once.
    script.let_follow.cancel();
    let (cluster, calls, mut wire, job) = start(&script).await;
    let mut seen = vec![wire.event().await];
    calls.next().await.complete();
    script.wait_asked(2).await;
    wire.expect_silence().await;
    assert_eq!(kinds(&written(&cluster, job).await), [Started], "{fate:?}");
    script.let_commit.cancel();
    seen.push(wire.event().await);
    wire.expect_silence().await;
    assert_eq!(kinds(&seen), [Started, Completed], "{fate:?}");
    assert_eq!(seen, written(&cluster, job).await, "{fate:?}");
    assert!(calls.is_empty().await, "the job ran again");
    cluster.stop().await;
}

#[actix_web::test]
async fn nobody_hears_of_an_end_whose_commit_was_aborted() {
    expect_an_end_only_once_committed(Fate::Aborted).await;
}

#[actix_web::test]
async fn nobody_hears_of_an_end_whose_commit_was_lost_without_a_word() {
    expect_an_end_only_once_committed(Fate::Lost).await;
}

#[actix_web::test]
async fn an_end_whose_commit_succeeded_without_a_word_is_neither_committed_nor_told_again() {
    let script = Script::commit_in_doubt(Fate::Written);
    let (cluster, calls, mut wire, job) = start(&script).await;
    calls.next().await.complete();
    let seen = [wire.event().await, wire.event().await];
    assert_eq!(kinds(&seen), [Started, Completed]);
    // Commits are made one after the other: once another job has ended, nothing of the first is left to commit.
    let other = new_id(&wire, 2);
    wire.submit(submit_of(2, other)).await;
    let call = calls.next().await;
    assert_eq!(call.job_id, other, "the job ran again");
    call.complete();
    let others = [wire.event().await, wire.event().await];
    assert!(others.iter().all(|event| event.job_id == other), "{others:#?}");
    assert_eq!(kinds(&others), [Started, Completed]);
    script.follow().await;
    wire.expect_silence().await;
    assert_eq!(*script.asked.borrow(), 2, "one commit for each job");
    assert_eq!(seen[..], written(&cluster, job).await);
    assert!(calls.is_empty().await, "the job ran again");
    cluster.stop().await;
}

/// Two tenants submit a job with one id, and each waits for its own; one of them ends.
async fn expect_ones_own(script: Script) {
    let scopes = "jobs:write+jobs:read";
    let tokens = [entry("ann", "red", scopes), entry("bob", "blue", scopes)].join(",");
    let env = [("RELAY__AUTH__TOKENS", tokens.as_str())];
    let (cluster, calls) = cluster(&script, 1, &env).await;
    let mut bob = session(&cluster, Some("bob-token")).await;
    let mut ann = session(&cluster, Some("ann-token")).await;
    let job = new_id(&ann, 1);
    bob.submit(submit_of(1, job)).await;
    let bobs = calls.next().await;
    ann.submit(submit_of(1, job)).await;
    let anns = calls.next().await;
    for wire in [&mut ann, &mut bob] {
        assert_eq!(wire.event().await.event, Started);
    }
    anns.complete();
    assert_eq!(ann.event().await.event, Completed);
    bob.expect_silence().await;
    bobs.complete();
    assert_eq!(bob.event().await.event, Completed);
    cluster.stop().await;
}

#[actix_web::test]
async fn a_tenant_is_not_told_of_a_job_of_another_with_the_same_id_before_the_log_is_read() {
    expect_ones_own(Script::new()).await;
}

#[actix_web::test]
async fn a_tenant_is_not_told_of_a_job_of_another_with_the_same_id_from_the_log() {
    let script = Script::new();
    script.let_follow.cancel();
    expect_ones_own(script).await;
}
