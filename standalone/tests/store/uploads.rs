//! Uploads over sessions: cut, continued on another node, in the wrong place, damaged, ended twice.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use relay_node::job::claim_check::PART_BYTES;
use relay_protocol::limits::TRANSFER_CHUNK_BYTES;
use relay_protocol::{EventKind, UploadId};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::{PATIENCE, completed, loudness, wait_for, wav};
use crate::s3::on_both;
use crate::wire::{Wire, end_of};

/// Seconds of sound in an upload of several parts.
const SECONDS: u32 = 330;

#[actix_web::test]
async fn a_cut_upload_goes_on_at_another_node() {
    on_both(2, &[], async |cluster| {
        let media = wav(SECONDS);
        let (first, id) = (PART_BYTES + 1_000_000, UploadId::new(1));
        let mut wire = Wire::open(&cluster.address(0)).await;
        assert_eq!(wire.begin(1, id).await, 0);
        wire.send(1, &media, 0, first).await;
        wire.break_off();
        // What the node had gathered is stored once it notices.
        wait_for("the cut upload", async || cluster.count("parts").await == 2).await;

        let mut wire = Wire::open(&cluster.address(1)).await;
        assert_eq!(wire.begin(1, id).await, first as u64, "the other node knows all that was acknowledged");
        wire.send(1, &media, first, media.len()).await;
        wire.end(1, &media).await;
        let event = wire.submit_upload(2, 1).await;
        assert_eq!(event.event, EventKind::Completed, "{event:?}");
        assert_eq!((cluster.count("parts").await, cluster.count("uploads").await), (0, 1));

        // The answer to the end was lost: begun again, it is finished, and so it stays.
        let mut wire = Wire::open(&cluster.address(0)).await;
        assert_eq!(wire.begin(1, id).await, media.len() as u64);
        assert_eq!(wire.refused_chunk(1, media.len() as u64).await.code, "wrong_offset");
        wire.begin(2, id).await;
        wire.end(2, &media).await;
        wire.begin(3, id).await;
        wire.say(&end_of(3, &media[..media.len() - 1]), b"").await;
        assert_eq!(wire.error(3).await.code, "digest_mismatch");
        assert_eq!(wire.submit_upload(4, 2).await.event, EventKind::Completed);
        assert_eq!(cluster.count("uploads").await, 1, "a finished upload is not removed by a wrong end");
    })
    .await;
}

#[actix_web::test]
async fn a_chunk_in_the_wrong_place_is_refused_and_nothing_is_lost() {
    on_both(1, &[], async |cluster| {
        let media = wav(20);
        let id = UploadId::new(2);
        let mut wire = Wire::open(&cluster.address(0)).await;
        wire.begin(1, id).await;
        wire.send(1, &media, 0, 1_000).await;
        let gap = wire.refused_chunk(1, 1_001).await;
        assert_eq!((gap.code.as_str(), gap.retryable), ("wrong_offset", false), "{gap:?}");
        assert!(gap.message.contains("byte 1000 of the upload comes next, not 1001"), "{gap:?}");
        assert_eq!(wire.refused_chunk(1, 1_000).await.code, "unknown_upload", "it is given up on this connection");
        // The node stores what it had beside the session.
        wait_for("the first bytes", async || cluster.count("parts").await == 1).await;
        assert_eq!(wire.begin(2, id).await, 1_000);
        wire.send(2, &media, 1_000, 3_000).await;
        assert_eq!(wire.refused_chunk(2, 2_000).await.code, "wrong_offset", "an overlap");
        wait_for("the next bytes", async || cluster.count("parts").await == 2).await;

        assert_eq!(wire.begin(3, id).await, 3_000);
        wire.say(&end_of(3, &media), b"").await;
        let early = wire.error(3).await;
        assert_eq!(early.code, "wrong_offset", "bytes are missing: {early:?}");
        assert_eq!(wire.begin(4, id).await, 3_000, "an early end takes nothing away");
        wire.send(4, &media, 3_000, media.len()).await;
        wire.end(4, &media).await;
        assert_eq!(wire.submit_upload(5, 4).await.event, EventKind::Completed);
    })
    .await;
}

#[actix_web::test]
async fn damaged_bytes_are_refused_and_removed() {
    on_both(1, &[], async |cluster| {
        let media = wav(SECONDS);
        let id = UploadId::new(3);
        let mut wire = Wire::open(&cluster.address(0)).await;
        wire.begin(1, id).await;
        let mut damaged = media.clone();
        damaged[PART_BYTES + 7] ^= 1;
        wire.send(1, &damaged, 0, damaged.len()).await;
        wire.say(&end_of(1, &media), b"").await;
        let refused = wire.error(1).await;
        assert_eq!((refused.code.as_str(), refused.retryable), ("digest_mismatch", false), "{refused:?}");
        assert_eq!((cluster.count("parts").await, cluster.count("uploads").await), (0, 0));
        assert_eq!(wire.begin(2, id).await, 0, "it begins anew");
        wire.send(2, &media, 0, media.len()).await;
        wire.end(2, &media).await;
    })
    .await;
}

/// A node that does not know yet that its client is gone stores what the next node stores too.
#[actix_web::test]
async fn two_nodes_that_store_the_same_bytes_do_no_harm() {
    on_both(2, &[], async |cluster| {
        let media = wav(SECONDS);
        let id = UploadId::new(4);
        let mut old = Wire::open(&cluster.address(0)).await;
        old.begin(1, id).await;
        old.send(1, &media, 0, 700_000).await;
        let mut new = Wire::open(&cluster.address(1)).await;
        assert_eq!(new.begin(1, id).await, 0, "nothing is stored yet");
        new.send(1, &media, 0, 600_000).await;
        old.break_off();
        wait_for("the old node's bytes", async || cluster.count("parts").await == 1).await;
        // The new node has gathered the first bytes as well; only what goes beyond them is stored.
        new.send(1, &media, 600_000, media.len()).await;
        new.end(1, &media).await;
        assert_eq!(new.submit_upload(2, 1).await.event, EventKind::Completed);
        assert_eq!(cluster.count("parts").await, 0);
    })
    .await;
}

/// The SDK behind a proxy that cuts its first connection and then leads to the other node.
#[actix_web::test]
async fn the_sdk_sends_only_what_is_missing() {
    on_both(2, &[], async |cluster| {
        let media = wav(SECONDS);
        let cut_after = PART_BYTES + PART_BYTES / 2;
        let proxy = Proxy::start(vec![cluster.address(0), cluster.address(1)], cut_after).await;
        let client = cluster.client(&proxy.url).await;
        let handle = client.submit(loudness(media.clone())).await.expect("the job is accepted");
        assert_eq!(client.node(), "node-2");
        completed(handle).await;
        client.close().await;
        let second = proxy.sent[1].load(Ordering::SeqCst);
        // The chunk that was cut comes again, and what is no media.
        assert!(
            second < media.len() - cut_after + 2 * TRANSFER_CHUNK_BYTES,
            "{second} bytes came over the second connection"
        );
    })
    .await;
}

/// What a killed node had stored is there for its next life.
#[actix_web::test]
async fn kill_9_of_the_node_costs_at_most_one_part() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let media = wav(SECONDS);
    let (first, id) = (PART_BYTES + 300_000, UploadId::new(5));
    let (mut relay, address) = relay(&data).await;
    let mut wire = Wire::open(&address).await;
    wire.begin(1, id).await;
    wire.send(1, &media, 0, first).await;
    relay.kill().await.unwrap();

    let (mut relay, address) = self::relay(&data).await;
    let mut wire = Wire::open(&address).await;
    let next = wire.begin(1, id).await as usize;
    assert!(next >= PART_BYTES && next <= first, "byte {next} comes next");
    wire.send(1, &media, next, media.len()).await;
    wire.end(1, &media).await;
    assert_eq!(wire.submit_upload(2, 1).await.event, EventKind::Completed);
    relay.kill().await.unwrap();
}

/// The real binary on a data folder; killed when it is dropped.
async fn relay(data: &std::path::Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standalone"));
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("the relay starts in time").unwrap().unwrap();
    (child, line.strip_prefix("ready http://").expect("ready URL").to_owned())
}

/// Leads each further connection to the next address; the first is cut after so many bytes of the client's.
struct Proxy {
    url: String,
    /// Bytes of the client's on each connection.
    sent: Arc<[AtomicUsize; 2]>,
}

impl Proxy {
    async fn start(targets: Vec<String>, cut_after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = sent.clone();
        tokio::spawn(async move {
            for (at, target) in targets.into_iter().enumerate() {
                let Ok((client, _)) = listener.accept().await else { return };
                let node = TcpStream::connect(target).await.unwrap();
                let (mut from, mut to_client) = client.into_split();
                let (mut from_node, mut to) = node.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_node, &mut to_client).await });
                let counted = counted.clone();
                let forth = async move {
                    let mut chunk = vec![0; 65_536];
                    while let Ok(read @ 1..) = from.read(&mut chunk).await {
                        let all = counted[at].fetch_add(read, Ordering::SeqCst) + read;
                        if to.write_all(&chunk[..read]).await.is_err() || (at == 0 && all >= cut_after) {
                            break;
                        }
                    }
                    // The node hears all that was sent before the end; a reset would take some of it from its queue.
                    _ = to.shutdown().await;
                    _ = back.await;
                };
                // The second connection lives as long as the test.
                if at == 0 { forth.await } else { drop(tokio::spawn(forth)) }
            }
        });
        Self { url, sent }
    }
}
