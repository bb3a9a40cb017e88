//! Handles against senders on other threads.

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use relay_protocol::event::{TERMINAL_N, seq};
use tokio::sync::mpsc::error::TrySendError;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const HANDLES: u8 = 4;
/// Events of one job: so many that a sender is met in the middle of its work.
const EVENTS: u64 = 1_000_000;
/// Events of a job that is asked for again and again.
const ASKED_EVENTS: u64 = 100_000;

/// A handle of a job, and what its connection has of it.
fn handle(job: u8, room: usize, commands: &mpsc::Sender<Command>) -> (JobHandle, mpsc::Sender<ClientEvent>) {
    let (sender, events) = mpsc::channel(room);
    let handle = JobHandle {
        job_id: JobId::from_bytes([job; 16]),
        accepted: Bytes::new(),
        events,
        shared: Arc::default(),
        commands: commands.clone(),
        last_seq: 0,
        ended: false,
    };
    (handle, sender)
}

#[tokio::test]
async fn the_end_comes_though_a_later_attempt_was_told_of() {
    let (commands, _taken) = mpsc::channel(1);
    let (mut handle, events) = handle(1, 8, &commands);
    let (started, end) = (seq(2, 1), seq(1, TERMINAL_N));
    for (seq, terminal) in [(started, false), (started, false), (end, true)] {
        let event = ClientEvent { job_id: handle.job_id(), seq, terminal, json: Bytes::new() };
        events.send(event).await.unwrap();
    }
    drop(events);
    let mut seen = Vec::new();
    while let Some(event) = handle.next_event().await.unwrap() {
        seen.push(event.seq);
    }
    assert_eq!(seen, [started, end]);
}

async fn send_all(job_id: JobId, events: mpsc::Sender<ClientEvent>) {
    for seq in 1..=EVENTS {
        let event = ClientEvent { job_id, seq, terminal: seq == EVENTS, json: Bytes::new() };
        events.send(event).await.unwrap();
    }
}

/// A look at a queue that a sender is just writing to must neither block the thread nor take a wake-up that is meant for
/// somebody else on it: all these handles are waited for by the one task of a thread that blocks on it.
#[test]
fn many_handles_are_waited_for_in_one_task() {
    let (done, ended) = channel();
    // A task that stands still cannot tell: its thread is left behind.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let read = runtime.block_on(async {
            let (commands, _taken) = mpsc::channel(1);
            let mut readers = FuturesUnordered::new();
            for job in 0..HANDLES {
                let (mut handle, events) = handle(job, 256, &commands);
                tokio::spawn(send_all(handle.job_id(), events));
                readers.push(async move {
                    let mut read = 0;
                    while handle.next_event().await.unwrap().is_some() {
                        read += 1;
                    }
                    read
                });
            }
            let mut read = 0_u64;
            while let Some(one) = readers.next().await {
                read += one;
            }
            read
        });
        done.send(read).unwrap();
    });
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(u64::from(HANDLES) * EVENTS), "every event is read");
}

/// What a connection does with a handle that takes one event at a time, until the terminal one is handed over.
fn deliver(mut commands: mpsc::Receiver<Command>, events: &mpsc::Sender<ClientEvent>, shared: &JobShared) {
    let mut after = 0;
    loop {
        for seq in after + 1..=ASKED_EVENTS {
            let event = ClientEvent {
                job_id: JobId::from_bytes([0; 16]),
                seq,
                terminal: seq == ASKED_EVENTS,
                json: Bytes::new(),
            };
            let Err(TrySendError::Full(event)) = events.try_send(event) else { continue };
            shared.lagging.store(true, Ordering::SeqCst);
            if events.try_send(event).is_err() {
                break;
            }
        }
        match commands.blocking_recv() {
            Some(Command::Rewatch { after_seq, .. }) => after = after_seq,
            _ => return,
        }
    }
}

#[test]
fn what_did_not_fit_is_asked_for_however_fast_the_connection_answers() {
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let (commands, taken) = mpsc::channel(1);
        let (mut handle, events) = handle(0, 1, &commands);
        let shared = handle.shared.clone();
        std::thread::spawn(move || deliver(taken, &events, &shared));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seqs: Vec<u64> = runtime.block_on(async {
            let mut seqs = Vec::new();
            while let Some(event) = handle.next_event().await.unwrap() {
                seqs.push(event.seq);
            }
            seqs
        });
        done.send(seqs).unwrap();
    });
    let seqs = ended.recv_timeout(PATIENCE).expect("the terminal event comes");
    assert!(seqs.iter().copied().eq(1..=ASKED_EVENTS), "every event once, in order");
}
