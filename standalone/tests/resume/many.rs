//! Many clients at once on one node: all of them see each event once, and few reads of the log serve them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use relay_protocol::session::{AcceptedV1, EventV1, NoticeV1, ResumeV1, ResumedV1};
use relay_protocol::{Event, JobId, Message, topics};
use tokio::time::Instant;

use crate::cluster::{records, two_nodes};
use crate::wire::{Wire, new_id, submit_of};

/// Clients, and jobs: one each.
const CLIENTS: u64 = 1_000;
/// Sessions that are being opened at a time.
const OPENING: usize = 16;
/// Reads of the log at a time.
const READERS_MAX: u64 = 2;
/// Memory that a thousand clients and their sessions may take, both ends of them in this process.
const GROWTH_BYTES_MAX: u64 = 300 * 1024 * 1024;

async fn metric(url: &str, name: &str) -> u64 {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Submits a job for each client and breaks off; the last seq that was seen of each.
async fn submit_all(address: &str) -> (String, HashMap<JobId, u64>) {
    let mut wire = Wire::open(address, None).await;
    let ids: Vec<JobId> = (0..CLIENTS).map(|number| new_id(&wire, number)).collect();
    for (number, id) in ids.iter().enumerate() {
        wire.say(&submit_of(number as u64 + 1, *id), b"sound").await;
    }
    let mut seen: HashMap<JobId, u64> = HashMap::new();
    let mut accepted = 0;
    while accepted < CLIENTS {
        let frame = wire.frame().await;
        let (id, seq) = match frame.kind {
            AcceptedV1::KIND => {
                accepted += 1;
                (frame.head::<AcceptedV1>().unwrap().job_id, 1)
            }
            EventV1::KIND => {
                let event: EventV1 = frame.head().unwrap();
                (event.job_id, event.seq)
            }
            kind => panic!("kind {kind:#06x}"),
        };
        let last = seen.entry(id).or_default();
        *last = seq.max(*last);
    }
    let token = wire.welcome.resume_token.clone();
    wire.break_off();
    (token, seen)
}

/// Resumes one job, and returns the seqs that came, up to the terminal one.
async fn resume(mut wire: Wire, resume_token: &str, job: (JobId, u64)) -> Vec<u64> {
    wire.say(&ResumeV1 { request: 1, resume_token: resume_token.to_owned(), jobs: vec![job] }, b"").await;
    wire.expect::<ResumedV1>().await;
    let mut seqs = Vec::new();
    loop {
        let event = wire.event().await;
        assert_eq!(event.job_id, job.0);
        seqs.push(event.seq);
        if event.event.is_terminal() {
            return seqs;
        }
    }
}

#[actix_web::test]
async fn a_thousand_clients_go_on_at_one_node_with_few_reads() {
    let readers_max = READERS_MAX.to_string();
    let (cluster, calls, [one, two]) = two_nodes(&[
        ("RELAY__EVENTS__CATCH_UP_READERS_MAX", &readers_max),
        // These clients answer no pings.
        ("RELAY__GATEWAY__IDLE_TIMEOUT_MS", "300000"),
        ("RELAY__GATEWAY__HELLO_TIMEOUT_MS", "60000"),
    ])
    .await;
    let (token, seen) = submit_all(&one).await;
    // The jobs go on while their clients come back.
    actix_web::rt::spawn(async move {
        loop {
            calls.next().await.complete();
        }
    });
    let url = format!("http://{two}");
    let scans_before = metric(&url, "relay_catch_up_scans_total").await;
    let (bytes_before, done, most) = (resident_bytes(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = async {
        while !done.load(Ordering::SeqCst) {
            most.fetch_max(metric(&url, "relay_catch_up_readers").await, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // A few at a time: a busy machine must not make a hello late. What follows is all at once.
    let opening = futures_util::stream::iter(&seen).map(|_| Wire::open(&two, None)).buffer_unordered(OPENING);
    let sessions: Vec<Wire> = opening.collect().await;
    let began = Instant::now();
    let clients = async {
        let jobs = sessions.into_iter().zip(&seen);
        let all = join_all(jobs.map(|(wire, (id, seq))| resume(wire, &token, (*id, *seq)))).await;
        done.store(true, Ordering::SeqCst);
        all
    };
    let (all, ()) = tokio::join!(clients, watcher);
    let (took, grown) = (began.elapsed(), resident_bytes().saturating_sub(bytes_before));
    let scans = metric(&url, "relay_catch_up_scans_total").await - scans_before;
    let mut written: HashMap<JobId, Vec<u64>> = HashMap::new();
    for record in records(&*cluster.log, topics::EVENTS).await {
        let event: Event = serde_json::from_slice(&record.value.unwrap()).unwrap();
        written.entry(event.job_id).or_default().push(event.seq);
    }
    for ((id, last), came) in seen.iter().zip(all) {
        let mut wanted = written.remove(id).unwrap();
        wanted.retain(|seq| seq > last);
        wanted.sort_unstable();
        wanted.dedup();
        assert_eq!(came, wanted, "{id} after {last}");
    }
    println!("{CLIENTS} clients had all their events after {took:?}, by {scans} scans, in {} MB", grown / 1_000_000);
    assert!(most.load(Ordering::SeqCst) <= READERS_MAX, "{most:?} readers at a time");
    assert!(scans < CLIENTS / 2, "{scans} scans are not shared");
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    cluster.stop().await;
}

#[actix_web::test]
async fn who_finds_no_room_is_told_when_to_come_again() {
    let env = [("RELAY__EVENTS__CATCH_UP_READERS_MAX", "1"), ("RELAY__EVENTS__CATCH_UP_WAITING_MAX", "1")];
    let (cluster, calls, [one, two]) = two_nodes(&env).await;
    let mut wire = Wire::open(&one, None).await;
    let ids: Vec<JobId> = (0..32).map(|number| new_id(&wire, number)).collect();
    let mut ended = 0;
    for (number, id) in ids.iter().enumerate() {
        wire.submit(submit_of(number as u64 + 1, *id)).await;
        assert_eq!(wire.event().await.job_id, *id);
        calls.next().await.complete();
        ended += usize::from(wire.event().await.event.is_terminal());
    }
    assert_eq!(ended, ids.len());
    let resume_token = wire.welcome.resume_token.clone();
    wire.break_off();
    let mut wire = Wire::open(&two, None).await;
    let (mut left, mut refused, mut request) = (ids.clone(), 0, 0);
    while !left.is_empty() {
        request += 1;
        let jobs = left.iter().map(|id| (*id, 1)).collect();
        wire.say(&ResumeV1 { request, resume_token: resume_token.clone(), jobs }, b"").await;
        wire.expect::<ResumedV1>().await;
        let (mut answered, mut again) = (0, Vec::new());
        while answered < left.len() {
            let frame = wire.frame().await;
            if frame.kind == NoticeV1::KIND {
                let told: NoticeV1 = frame.head().unwrap();
                assert_eq!((told.request, told.code.as_str(), told.goes_on), (request, "too_many_requests", false));
                assert!(told.retryable && told.retry_after_ms.is_some());
                again.push(told.job_id);
                answered += 1;
            } else {
                answered += usize::from(frame.head::<EventV1>().unwrap().terminal);
            }
        }
        refused += again.len();
        left = again;
    }
    assert!(refused > 0, "there was room for all");
    wire.expect_silence().await;
    cluster.stop().await;
}
