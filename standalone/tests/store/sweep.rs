//! What the sweep removes, and what it leaves, by the age that things seem to have later on.

use bytes::Bytes;
use relay_node::job::claim_check::{Named, StoreSettings, Sweeper, UploadEnd, UploadLimits, UploadName};
use relay_node::settings::Settings;
use relay_protocol::{Input, StoredObject, UploadId};
use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::s3::on_both;

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;
const TENANT: &str = "acme";

/// A sweep every 24 hours of orphans, every 168 of what was used.
fn settings(objects_max: usize) -> StoreSettings {
    let mut store = Settings::load(None, [].into()).unwrap().store;
    assert_eq!((store.orphan_age_h, store.retention_h), (24, 168));
    store.sweep_objects_max = objects_max;
    store
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Runs of one round, as it would go `hours` from now; how much it removed.
async fn round(cluster: &Cluster, objects_max: usize, hours: u64) -> (usize, usize) {
    let mut sweeper = Sweeper::new(cluster.claims(0), &settings(objects_max));
    let (mut runs, mut removed) = (0, 0);
    loop {
        let swept = sweeper.run(now_ms() + hours * HOUR_MS).await.expect("the store can be swept");
        assert!(swept.seen <= objects_max, "{swept:?}");
        runs += 1;
        removed += swept.removed;
        if swept.round {
            return (runs, removed);
        }
    }
}

async fn upload(cluster: &Cluster, id: u128, finish: bool) -> StoredObject {
    let name = UploadName { tenant: TENANT.to_owned(), id: UploadId::new(id) };
    let limits = UploadLimits { bytes_max: 1_000, parts_max: 10 };
    let mut writer = cluster.claims(0).upload(name.clone(), limits, None).await.unwrap();
    for (offset, part) in [(0, b"abc".as_slice()), (3, b"def")] {
        writer.write(offset, Bytes::from_static(part)).await.unwrap();
        writer.flush().await.unwrap();
    }
    let end = UploadEnd { bytes: 6, sha256: Sha256::digest(b"abcdef").into(), named: Named::default() };
    if finish {
        return cluster.claims(0).finish_upload(&name, end).await.unwrap();
    }
    StoredObject { path: String::new(), bytes: 0, sha256: String::new(), name: None, media_type: None }
}

#[actix_web::test]
async fn only_what_nobody_will_ask_for_goes() {
    on_both(1, &[], async |cluster| {
        let claims = cluster.claims(0);
        upload(cluster, 1, false).await;
        let orphan = Input::Object(upload(cluster, 2, true).await);
        let used = Input::Object(upload(cluster, 3, true).await);
        claims.keep(&used, now_ms()).await.expect("a new upload can be named");
        claims.put("results/1/1-media", Bytes::from_static(b"result"), Named::default()).await.unwrap();
        let counts = async || {
            let count = async |folder| cluster.count(folder).await;
            (count("parts").await, count("uploads").await, count("used").await, count("results").await)
        };
        assert_eq!(counts().await, (2, 2, 1, 1));

        assert_eq!(round(cluster, 1_000, 24).await.1, 0, "nothing is older than a day and the margin");
        // A job may no longer name what the sweep is about to take.
        let late = claims.keep(&orphan, now_ms() + 24 * HOUR_MS + 1_000).await.unwrap_err();
        assert_eq!(late.to_job_error().code, "unknown_upload");
        claims.keep(&used, now_ms() + 24 * HOUR_MS + 1_000).await.expect("what a job has named may be named again");
        assert_eq!(round(cluster, 1_000, 25).await.1, 3, "the parts, and the upload that no job has named");
        assert_eq!(counts().await, (0, 1, 1, 1));

        assert_eq!(round(cluster, 1_000, 168).await.1, 0);
        let last = claims.open_input(&used).await.expect("a used input is there until the end of its retention");
        assert_eq!(last.bytes, 6);
        drop(last);
        assert_eq!(round(cluster, 1_000, 169).await.1, 3, "input, mark and result");
        assert_eq!(counts().await, (0, 0, 0, 0));
        assert_eq!(claims.open_input(&used).await.unwrap_err().to_job_error().code, "input_unavailable");
        assert_eq!(cluster.objects().await.len(), 1, "the store keeps its identity");
    })
    .await;
}

/// A run looks at so many objects and no more; the next ones go on, and two sweepers do no harm.
#[actix_web::test]
async fn a_run_is_bounded_and_a_round_gets_everywhere() {
    on_both(1, &[], async |cluster| {
        for id in 0..25 {
            let path = format!("results/{id:02}/1-media");
            cluster.claims(0).put(&path, Bytes::from_static(b"result"), Named::default()).await.unwrap();
        }
        let mut sweepers = [1, 2].map(|_| Sweeper::new(cluster.claims(0), &settings(7)));
        let later = now_ms() + 1_000 * HOUR_MS;
        let mut removed = 0;
        for _ in 0..8 {
            let [one, two] = &mut sweepers;
            let (one, two) = tokio::join!(one.run(later), two.run(later));
            let (one, two) = (one.unwrap(), two.unwrap());
            assert!(one.seen <= 7 && two.seen <= 7);
            removed += one.removed + two.removed;
        }
        assert!(removed >= 25, "{removed}");
        assert_eq!(cluster.count("results").await, 0);
    })
    .await;
    // One that sees them all alone needs as many runs as it takes.
    let cluster = Cluster::start(1, Vec::new(), None).await;
    for id in 0..25 {
        let path = format!("results/{id:02}/1-media");
        cluster.claims(0).put(&path, Bytes::from_static(b"result"), Named::default()).await.unwrap();
    }
    assert_eq!(round(&cluster, 7, 1_000).await, (4, 25));
    cluster.stop().await;
}

/// What a killed writer left in the folder is no object, and goes all the same.
#[actix_web::test]
async fn files_of_killed_writers_go() {
    let cluster = Cluster::start(1, Vec::new(), None).await;
    let claims = cluster.claims(0);
    claims.put("uploads/aa/bb", Bytes::from_static(b"input"), Named::default()).await.unwrap();
    claims.keep(&Input::Object(upload(&cluster, 9, true).await), now_ms()).await.unwrap();
    let folder = cluster.store_folder();
    std::fs::write(folder.join("uploads/aa/cc#1"), b"half").unwrap();
    std::fs::write(folder.join("uploads/aa/dd#x"), b"not a writer's").unwrap();
    round(&cluster, 1_000, 1).await;
    assert!(folder.join("uploads/aa/cc#1").exists(), "it may be written still");
    round(&cluster, 1_000, 25).await;
    assert!(!folder.join("uploads/aa/cc#1").exists());
    assert!(folder.join("uploads/aa/dd#x").exists());
    cluster.stop().await;
}
