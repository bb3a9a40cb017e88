//! A real S3-compatible server: moto, from the Python that `scripts/python.sh` makes. One serves all tests of this
//! program and ends with it; each test has a bucket of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cluster::{Cluster, PATIENCE};

/// Names of the buckets.
static BUCKETS: AtomicU32 = AtomicU32::new(0);

struct Server {
    url: String,
    /// The server ends when its standard input does, so with the test program, however that ends.
    _process: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let cache = std::env::var_os("RELAY_CACHE").map_or_else(|| repository.join(".cache"), PathBuf::from);
        let mut command = Command::new(cache.join("python/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/s3_server.py"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server starts: scripts/python.sh makes its Python");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("ready ").expect("the S3 server is ready").to_owned();
        Server { url, _process: child }
    })
}

/// A bucket of the server, and the settings that lead there.
pub(crate) struct Bucket {
    name: String,
    credentials: tempfile::NamedTempFile,
}

impl Bucket {
    /// A new, empty bucket.
    pub(crate) async fn new() -> Self {
        let name = format!("relay-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        let url = format!("{}/{name}", server().url);
        let made = reqwest::Client::new().put(&url).timeout(PATIENCE).send().await.expect("the S3 server answers");
        assert!(made.status().is_success(), "{made:?}");
        let credentials = tempfile::NamedTempFile::new().unwrap();
        let text = "[default]\naws_access_key_id = test\naws_secret_access_key = secret\n";
        std::fs::write(credentials.path(), text).unwrap();
        Self { name, credentials }
    }

    /// `RELAY__STORE__…` variables.
    pub(crate) fn env(&self, prefix: &str) -> Vec<(String, String)> {
        let values = [
            ("KIND", "s3".to_owned()),
            ("BUCKET", self.name.clone()),
            ("PREFIX", prefix.to_owned()),
            ("ENDPOINT", server().url.clone()),
            ("ALLOW_HTTP", "true".to_owned()),
            ("CREDENTIALS_FILE", self.credentials.path().to_str().unwrap().to_owned()),
        ];
        values.into_iter().map(|(name, value)| (format!("RELAY__STORE__{name}"), value)).collect()
    }

    /// Names of the objects, read from the server itself.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let url = format!("{}/{}?list-type=2&max-keys=1000", server().url, self.name);
        let text = reqwest::get(url).await.expect("the S3 server answers").text().await.unwrap();
        assert!(text.contains("<ListBucketResult"), "{text}");
        let keys = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned());
        keys.collect()
    }
}

/// Runs a test on a cluster with a folder and on one with a bucket.
pub(crate) async fn on_both(nodes: u32, env: &[(&str, &str)], test: impl AsyncFn(&Cluster)) {
    let env: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let cluster = Cluster::start(nodes, env.clone(), None).await;
    test(&cluster).await;
    cluster.stop().await;

    let bucket = Bucket::new().await;
    let env = env.into_iter().chain(bucket.env("some/where")).collect();
    let cluster = Cluster::start(nodes, env, Some(bucket)).await;
    test(&cluster).await;
    cluster.stop().await;
}
