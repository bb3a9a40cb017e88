//! A session that breaks off on one node and goes on at another: no event is missed, none comes twice.

use std::collections::HashMap;

use relay_protocol::EventKind::{Accepted, Cancelled, Completed, Started};
use relay_protocol::session::{CancelV1, NoticeV1, ResumeV1, ResumedV1};
use relay_protocol::{Event, JobId};
use serde_json::json;

use crate::api::{expect_sound, kinds};
use crate::cluster::{Cluster, two_nodes};
use crate::stage::Stage;
use crate::tenants::entry;
use crate::wire::{Wire, new_id, submit_of};

/// Resumes these jobs of an earlier session at this node.
async fn resume(address: &str, token: Option<&str>, resume_token: &str, jobs: Vec<(JobId, u64)>) -> Wire {
    let mut wire = Wire::open(address, token).await;
    let count = jobs.len() as u32;
    wire.say(&ResumeV1 { request: 1, resume_token: resume_token.to_owned(), jobs }, b"").await;
    assert_eq!(wire.expect::<ResumedV1>().await.0, ResumedV1 { request: 1, jobs: count });
    wire
}

#[actix_web::test]
async fn a_broken_session_goes_on_at_another_node() {
    let (cluster, calls, [one, two]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    assert_eq!(wire.welcome.node, "node-1");
    let resume_token = wire.welcome.resume_token.clone();
    // Four jobs that are at four places of their lives when the connection breaks.
    let ids: Vec<JobId> = (0..4).map(|number| new_id(&wire, number)).collect();
    let mut running = HashMap::new();
    let mut seen: HashMap<JobId, Vec<Event>> = HashMap::new();
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(wire.submit(submit_of(number as u64 + 1, *id)).await.job_id, *id);
        let started = wire.event().await;
        assert_eq!((started.job_id, started.event), (*id, Started));
        seen.entry(*id).or_default().push(started);
        running.insert(*id, calls.next().await);
    }
    let call = running.remove(&ids[0]).unwrap();
    call.partial("one").await;
    call.complete();
    while !seen[&ids[0]].last().unwrap().event.is_terminal() {
        let event = wire.event().await;
        seen.get_mut(&event.job_id).unwrap().push(event);
    }
    running[&ids[1]].partial("seen").await;
    seen.get_mut(&ids[1]).unwrap().push(wire.event().await);
    wire.break_off();
    // This one ends while nobody is connected.
    running.remove(&ids[2]).unwrap().complete();
    cluster.api().wait_state(&ids[2].to_string(), "completed").await;
    let unended: Vec<_> = ids[1..].iter().map(|id| (*id, seen[id].last().unwrap().seq)).collect();
    let mut wire = resume(&two, None, &resume_token, unended).await;
    assert_eq!(wire.welcome.node, "node-2");
    running.remove(&ids[1]).unwrap().complete();
    wire.say(&CancelV1 { request: 2, job_id: ids[3], sent_at_us: 1 }, b"").await;
    let mut ends = HashMap::new();
    while ends.len() < 3 {
        // The answer to the cancel comes among the events.
        let Some(event) = wire.event_or_answer().await else { continue };
        if event.event.is_terminal() {
            ends.insert(event.job_id, event.event);
        }
        seen.get_mut(&event.job_id).unwrap().push(event);
    }
    assert_eq!(ends, HashMap::from([(ids[1], Completed), (ids[2], Completed), (ids[3], Cancelled)]));
    for (id, events) in seen {
        let mut durable: Vec<_> = events.into_iter().filter(|event| event.partial.is_none()).collect();
        let whole = cluster.api().life(&id.to_string()).await;
        durable.insert(0, whole[0].clone());
        expect_sound(&durable);
        assert_eq!(durable, whole.into_iter().filter(|event| event.partial.is_none()).collect::<Vec<_>>());
    }
    cluster.stop().await;
}

#[actix_web::test]
async fn a_session_resumed_twice_sees_each_event_once() {
    let (cluster, calls, [one, two]) = two_nodes(&[]).await;
    let mut wire = Wire::open(&one, None).await;
    let id = new_id(&wire, 1);
    wire.submit(submit_of(1, id)).await;
    let started = wire.event().await;
    let call = calls.next().await;
    let first_token = wire.welcome.resume_token.clone();
    wire.break_off();
    let wire = resume(&two, None, &first_token, vec![(id, started.seq)]).await;
    let second_token = wire.welcome.resume_token.clone();
    assert_ne!(second_token, first_token);
    wire.break_off();
    call.complete();
    cluster.api().wait_state(&id.to_string(), "completed").await;
    let mut wire = resume(&one, None, &second_token, vec![(id, started.seq)]).await;
    assert_eq!(wire.event().await.event, Completed);
    wire.expect_silence().await;
    // Without any event of it: all of them, from the receipt on.
    let mut wire = resume(&one, None, &second_token, vec![(id, 0)]).await;
    let whole = [wire.event().await, wire.event().await, wire.event().await];
    assert_eq!(kinds(&whole), [Accepted, Started, Completed]);
    wire.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn a_stolen_resume_token_shows_nothing_of_another_tenant() {
    let scopes = "jobs:write+jobs:read";
    let tokens = [entry("ann", "red", scopes), entry("bob", "blue", scopes)].join(",");
    let (cluster, calls, [one, two]) = two_nodes(&[("RELAY__AUTH__TOKENS", &tokens)]).await;
    let mut wire = Wire::open(&one, Some("ann-token")).await;
    let id = new_id(&wire, 1);
    wire.submit(submit_of(1, id)).await;
    wire.event().await;
    calls.next().await.complete();
    assert_eq!(wire.event().await.event, Completed);
    let stolen = wire.welcome.resume_token.clone();
    let mut thief = Wire::open(&two, Some("bob-token")).await;
    thief.say(&ResumeV1 { request: 1, resume_token: stolen, jobs: vec![(id, 0)] }, b"").await;
    assert_eq!(thief.answer_of_resume().await.expect("a refusal").code, "invalid_resume_token");
    // Nor with a token of the thief's own.
    let resume_token = thief.welcome.resume_token.clone();
    thief.say(&ResumeV1 { request: 2, resume_token, jobs: vec![(id, 0)] }, b"").await;
    assert_eq!(thief.answer_of_resume().await, None);
    let told = thief.expect::<NoticeV1>().await;
    assert_eq!((told.0.code.as_str(), told.0.goes_on, &told.1[..]), ("unknown_job", false, &b""[..]));
    thief.expect_silence().await;
    cluster.stop().await;
}

#[actix_web::test]
async fn the_sdk_goes_on_at_the_other_node_when_its_own_stops() {
    let (stage, calls) = Stage::new();
    let cluster = Cluster::start(&[], |options| {
        options.builtin = Some(stage);
        options.nodes = 2;
    });
    let mut cluster = cluster.await;
    let servers = [1, 0].map(|node: usize| format!("http://{}", cluster.standalone.nodes[node].addr)).join(",");
    let client = cluster.client_at(&servers, None).await;
    assert_eq!(client.node(), "node-2");
    let input = client_cli::JobInput::Bytes(bytes::Bytes::from_static(b"sound"));
    let mut handle = client.submit(client_cli::JobRequest::new("vad", input)).await.unwrap();
    let mut events = vec![serde_json::from_slice::<Event>(handle.accepted()).unwrap()];
    events.push(serde_json::from_slice(&handle.next_event().await.unwrap().unwrap().json).unwrap());
    let call = calls.next().await;
    let stopping = cluster.standalone.nodes.pop().unwrap();
    let ((), ()) = tokio::join!(stopping.stop(), async {
        cluster.wait_client_moved(&client, "node-1").await;
        call.complete();
    });
    while let Some(event) = handle.next_event().await.unwrap() {
        events.push(serde_json::from_slice(&event.json).unwrap());
    }
    expect_sound(&events);
    let last = events.last().unwrap();
    assert_eq!((last.event, &last.result), (Completed, &Some(json!({ "text": "done" }))));
    client.close().await;
    cluster.stop().await;
}
