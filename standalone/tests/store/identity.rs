//! All nodes of a cluster have the same store, or do not start.

use std::collections::HashMap;

use relay_node::job::claim_check::{Cache, ClaimCheck, StoreError};
use relay_node::settings::Settings;

use crate::cluster::Cluster;
use crate::s3::Bucket;

/// The store of a node with these variables.
fn store(env: Vec<(String, String)>) -> Result<ClaimCheck, StoreError> {
    let settings = Settings::load(None, env.into_iter().collect()).unwrap();
    settings.check().unwrap();
    ClaimCheck::open(&settings.store, Cache::new("", "identity-test", 1 << 32))
}

#[actix_web::test]
async fn a_node_with_another_store_is_refused() {
    let (bucket, other) = (Bucket::new().await, Bucket::new().await);
    let cluster = Cluster::start(1, bucket.env("a"), None).await;
    let log = cluster.standalone.nodes[0].state.online().unwrap().log.clone();
    let same = store(bucket.env("a")).unwrap();
    same.check_shared(&*log, "new", 1).await.expect("the same bucket and prefix are the same store");

    let folder = tempfile::tempdir().unwrap();
    let a_folder = vec![("RELAY__STORE__FOLDER".to_owned(), folder.path().to_str().unwrap().to_owned())];
    let others = [
        (bucket.env("b"), "/b is another one", "store.prefix"),
        (bucket.env("a/a"), "/a/a is another one", "store.prefix"),
        (other.env("a"), "is another one than the cluster's", "store.bucket"),
        (a_folder, folder.path().to_str().unwrap(), "store.folder"),
    ];
    for (env, place, advice) in others {
        let refused = store(env).unwrap().check_shared(&*log, "new", 1).await.unwrap_err();
        assert!(refused.is_final(), "{refused}");
        let words = refused.to_string();
        assert!(words.contains(place) && words.contains(advice), "{words}");
    }
    cluster.stop().await;
}

/// The first of two nodes that come at once makes the identity, and both have it.
#[actix_web::test]
async fn nodes_that_come_at_once_agree() {
    let bucket = Bucket::new().await;
    let cluster = Cluster::start(3, bucket.env(""), None).await;
    cluster.stop().await;
    assert_eq!(bucket.objects().await, ["store-id"]);
}

#[actix_web::test]
async fn settings_that_cannot_work_are_refused_with_their_key() {
    let bucket = Bucket::new().await;
    let missing = |file: &str| {
        let mut env: HashMap<String, String> = bucket.env("").into_iter().collect();
        env.insert("RELAY__STORE__CREDENTIALS_FILE".to_owned(), file.to_owned());
        store(env.into_iter().collect()).unwrap_err()
    };
    let empty = tempfile::NamedTempFile::new().unwrap();
    for (file, says) in
        [("/nowhere/keys", "cannot be read"), (empty.path().to_str().unwrap(), "has no aws_access_key_id")]
    {
        let refused = missing(file);
        assert!(refused.is_final(), "another try cannot help: {refused}");
        let words = refused.to_string();
        assert!(words.contains("store.credentials_file") && words.contains(says), "{words}");
    }
    let wrong = [
        (vec![("KIND", "s3")], "store.bucket"),
        (vec![("KIND", "s3"), ("BUCKET", "b"), ("ENDPOINT", "http://s3.example")], "store.endpoint"),
        (vec![("CACHE_BYTES_MAX", "1000")], "store.cache_bytes_max"),
        (vec![("UPLOAD_PARTS_MAX", "10")], "store.upload_parts_max"),
        (vec![("RETENTION_H", "5")], "store.retention_h"),
        (vec![("SWEEP_OBJECTS_MAX", "0")], "store.sweep_objects_max"),
    ];
    for (env, key) in wrong {
        let env = env.into_iter().map(|(name, value)| (format!("RELAY__STORE__{name}"), value.to_owned())).collect();
        let refused = Settings::load(None, env).unwrap().check().unwrap_err();
        assert_eq!(refused.key, key, "{refused}");
    }
    let env = [("RELAY__INPUTS__URL_ALLOW_PRIVATE".to_owned(), "10.0.0.0/40".to_owned())].into();
    assert_eq!(Settings::load(None, env).unwrap().check().unwrap_err().key, "inputs.url_allow_private");
}
