//! The store behind the claim check: a shared folder, or a bucket of an S3-compatible server.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::error::StoreError;
use super::settings::{StoreKind, StoreSettings};

/// Times that a failed request to an S3 server is repeated.
const RETRIES_MAX: usize = 3;
/// Attempts of a request, first to last, may begin within so many times its own time-out.
const RETRY_TIMEOUTS: u32 = 2;

/// A store, and how it is to be called in messages.
pub(super) struct Connected {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The folder, if it is one.
    pub(super) folder: Option<Folder>,
    /// `FOLDER` or `s3://BUCKET/PREFIX`.
    pub(super) place: String,
    /// What to do if it is the wrong one.
    pub(super) advice: &'static str,
}

/// A shared folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) files: Arc<LocalFileSystem>,
}

/// Opens the store as the settings say; a folder is made if there is none. Nothing is asked of an S3 server yet.
///
/// # Errors
/// A folder that cannot be made or read; [`StoreError::Setting`].
pub(super) fn connect(settings: &StoreSettings) -> Result<Connected, StoreError> {
    match settings.kind {
        StoreKind::Folder => folder(settings),
        StoreKind::S3 => s3(settings),
    }
}

fn folder(settings: &StoreSettings) -> Result<Connected, StoreError> {
    std::fs::create_dir_all(&settings.folder)?;
    let path = settings.folder.canonicalize()?;
    let files = Arc::new(LocalFileSystem::new_with_prefix(&path)?.with_automatic_cleanup(true));
    Ok(Connected {
        store: files.clone(),
        place: path.display().to_string(),
        folder: Some(Folder { path, files }),
        advice: "mount the shared folder there, or set store.folder",
    })
}

fn s3(settings: &StoreSettings) -> Result<Connected, StoreError> {
    let timeout = settings.request_timeout();
    // No limit on the whole of an answer: a large object may take long, as long as it comes.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(timeout)
        .with_read_timeout(timeout)
        .with_allow_http(settings.allow_http);
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: timeout * RETRY_TIMEOUTS, ..Default::default() };
    let mut builder = if settings.credentials_file.is_empty() {
        AmazonS3Builder::from_env()
    } else {
        let keys = read_credentials(&settings.credentials_file)?;
        let builder = AmazonS3Builder::new().with_access_key_id(keys.id).with_secret_access_key(keys.secret);
        match keys.token {
            Some(token) => builder.with_token(token),
            None => builder,
        }
    };
    builder = builder
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_client_options(client)
        .with_retry(retry);
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(&settings.endpoint);
    }
    let store = builder
        .build()
        .map_err(|error| StoreError::Setting { key: "store.kind", problem: format!("s3 cannot be used: {error}") })?;
    let prefix = settings.prefix.trim_matches('/');
    let store: Arc<dyn ObjectStore> =
        if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
    Ok(Connected {
        store,
        folder: None,
        place: format!("s3://{}/{prefix}", settings.bucket),
        advice: "set store.bucket, store.prefix and store.endpoint as on the other nodes",
    })
}

struct Credentials {
    id: String,
    secret: String,
    token: Option<String>,
}

/// Reads `name = value` lines as the AWS credentials file has them; sections and comments are passed over.
fn read_credentials(file: &str) -> Result<Credentials, StoreError> {
    let wrong = |problem| StoreError::Setting { key: "store.credentials_file", problem };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("{file} cannot be read: {error}")))?;
    let value = |wanted: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    let needed = |name: &str| {
        value(name).filter(|value| !value.is_empty()).ok_or_else(|| wrong(format!("{file} has no {name}")))
    };
    Ok(Credentials {
        id: needed("aws_access_key_id")?,
        secret: needed("aws_secret_access_key")?,
        token: value("aws_session_token"),
    })
}
