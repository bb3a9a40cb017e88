//! Inputs that a node fetches itself: only from an allow-list, and never from private addresses unless a setting names
//! their network, whoever leads there: the URL, the answer of a name server, a redirect.

mod networks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use relay_protocol::{ErrorCode, JobError};
use reqwest::Response;
use tokio::io::AsyncWriteExt;
use url::{Host, Url};

use super::claim_check::{Cache, CacheFile};
use super::media::{Media, MediaBody};

pub use networks::{Networks, is_private};

/// What may be fetched, and how much.
#[derive(Debug, Clone)]
pub struct UrlRules {
    /// Prefixes of URLs (scheme, host and path); none means that no URL is fetched.
    pub allowed: Vec<String>,
    /// Networks that are fetched from although they are private.
    pub private: Networks,
    /// Redirects that are followed.
    pub redirects_max: usize,
    /// Largest input, in bytes.
    pub bytes_max: u64,
    /// Largest input that is kept in memory, in bytes; others go to the cache.
    pub memory_bytes_max: usize,
    /// Time that all of it may take.
    pub timeout: Duration,
}

/// Tells the addresses of a host.
#[async_trait]
pub trait Names: Send + Sync {
    /// The addresses of `host`, with `port`.
    async fn addresses(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>>;
}

/// The machine's own way to resolve names.
struct SystemNames;

#[async_trait]
impl Names for SystemNames {
    async fn addresses(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Fetches inputs.
#[derive(Clone)]
pub struct UrlInputs {
    rules: Arc<UrlRules>,
    cache: Cache,
    names: Arc<dyn Names>,
}

impl UrlInputs {
    /// Fetches by these rules; large inputs go to `cache`.
    pub fn new(rules: UrlRules, cache: Cache) -> Self {
        Self { rules: Arc::new(rules), cache, names: Arc::new(SystemNames) }
    }

    /// The same with another way to resolve names.
    #[must_use]
    pub fn with_names(self, names: Arc<dyn Names>) -> Self {
        Self { names, ..self }
    }

    /// Checks a URL against the allow-list.
    ///
    /// # Errors
    /// [`ErrorCode::UrlNotAllowed`] with what to do.
    pub fn check(&self, text: &str) -> Result<Url, JobError> {
        let Ok(url) = Url::parse(text) else { return Err(refused(format!("{text:?} is not a URL"))) };
        self.check_url(&url)?;
        Ok(url)
    }

    fn check_url(&self, url: &Url) -> Result<(), JobError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(format!("only http and https URLs are fetched, not {}", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("a URL with a user name or password is not fetched".to_owned()));
        }
        if !self.rules.allowed.iter().any(|prefix| is_below(url, prefix)) {
            return Err(refused(format!(
                "{} is not on this relay's allow-list: add its prefix to inputs.url_allow, or upload the file",
                url.origin().ascii_serialization()
            )));
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.permit(url, address.into()),
            Some(Host::Ipv6(address)) => self.permit(url, address.into()),
            _ => Ok(()),
        }
    }

    fn permit(&self, url: &Url, address: std::net::IpAddr) -> Result<(), JobError> {
        if self.rules.private.permit(address) {
            return Ok(());
        }
        // The address itself stays unsaid: what a name leads to inside is nothing for a stranger.
        let host = url.host_str().unwrap_or_default();
        Err(refused(format!(
            "{host} leads to a private address: only networks of inputs.url_allow_private are fetched from"
        )))
    }

    /// Fetches the URL's bytes.
    ///
    /// # Errors
    /// [`ErrorCode::UrlNotAllowed`], [`ErrorCode::UrlFailed`], [`ErrorCode::TooLarge`], [`ErrorCode::EmptyMedia`],
    /// [`ErrorCode::StoreUnavailable`] if the cache cannot be written.
    pub async fn fetch(&self, text: &str) -> Result<Media, JobError> {
        let url = self.check(text)?;
        let fetched = tokio::time::timeout(self.rules.timeout, async {
            let (response, url) = self.follow(url.clone()).await?;
            self.take(response, &url).await
        });
        let fetched = fetched
            .await
            .unwrap_or_else(|_| Err(failed(&url, &format!("it took more than {} ms", self.rules.timeout.as_millis()))));
        if let Err(error) = &fetched {
            metrics::counter!("relay_url_inputs_failed_total", "code" => error.code.clone()).increment(1);
        }
        fetched
    }

    /// The answer behind all redirects, and the URL that gave it.
    async fn follow(&self, mut url: Url) -> Result<(Response, Url), JobError> {
        for _ in 0..=self.rules.redirects_max {
            let response = self.get(&url).await?;
            if !response.status().is_redirection() {
                return Ok((response, url));
            }
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| {
                failed(&url, &format!("the server answered {} without a place", response.status()))
                    .with_retryable(false)
            })?;
            self.check_url(&next).map_err(|error| {
                JobError::new(ErrorCode::UrlNotAllowed, format!("{url} redirects elsewhere: {}", error.message))
            })?;
            url = next;
        }
        let most = self.rules.redirects_max;
        Err(failed(&url, &format!("it is redirected more than {most} times")).with_retryable(false))
    }

    async fn get(&self, url: &Url) -> Result<Response, JobError> {
        let client = self.client(url).await?;
        let response = client.get(url.clone()).send().await.map_err(|error| failed(url, &error))?;
        // What the client was told to connect to was checked; this checks where it really is.
        match response.remote_addr() {
            Some(address) => self.permit(url, address.ip())?,
            None => return Err(failed(url, &"nobody knows where the connection leads")),
        }
        Ok(response)
    }

    /// A client that connects to the addresses checked here and to no others: a name server that answers otherwise a moment
    /// later is not asked again.
    async fn client(&self, url: &Url) -> Result<reqwest::Client, JobError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(self.rules.timeout)
            .no_proxy();
        if let Some(Host::Domain(domain)) = url.host() {
            let port = url.port_or_known_default().unwrap_or(80);
            let found = self.names.addresses(domain, port).await.map_err(|error| failed(url, &error))?;
            for address in &found {
                self.permit(url, address.ip())?;
            }
            if found.is_empty() {
                return Err(failed(url, &"the name has no address"));
            }
            builder = builder.resolve_to_addrs(domain, &found);
        }
        builder.build().map_err(|error| failed(url, &error))
    }

    /// The body: in memory while it is small, else in the cache.
    async fn take(&self, response: Response, url: &Url) -> Result<Media, JobError> {
        let status = response.status();
        if !status.is_success() {
            return Err(failed(url, &format!("the server answered {status}")).with_retryable(status.is_server_error()));
        }
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type = media_type.map(str::to_owned);
        let announced = response.content_length();
        let limit = self.rules.bytes_max;
        let too_large = || JobError::new(ErrorCode::TooLarge, format!("{url} has more than {limit} bytes"));
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        let mut spool = Spool { memory: Vec::new(), file: None, bytes: 0 };
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| failed(url, &error))?;
            if spool.bytes + part.len() as u64 > limit {
                return Err(too_large());
            }
            spool.write(part, self.rules.memory_bytes_max, &self.cache, announced.unwrap_or(limit)).await?;
        }
        if spool.bytes == 0 {
            return Err(JobError::new(ErrorCode::EmptyMedia, format!("{url} is empty")));
        }
        let name = url.path_segments().and_then(|mut path| path.next_back()).filter(|name| !name.is_empty());
        spool.media(name.map(str::to_owned), media_type).await
    }
}

/// Bytes on their way in.
struct Spool {
    memory: Vec<u8>,
    file: Option<(CacheFile, tokio::fs::File)>,
    bytes: u64,
}

impl Spool {
    async fn write(&mut self, part: Bytes, memory_max: usize, cache: &Cache, room: u64) -> Result<(), JobError> {
        self.bytes += part.len() as u64;
        if self.file.is_none() && self.bytes <= memory_max as u64 {
            self.memory.extend_from_slice(&part);
            return Ok(());
        }
        if self.file.is_none() {
            let (held, mut file) = cache.file(room).await.map_err(|error| error.to_job_error())?;
            file.write_all(&std::mem::take(&mut self.memory)).await.map_err(|error| unwritten(&error))?;
            self.file = Some((held, file));
        }
        match &mut self.file {
            Some((_, file)) => file.write_all(&part).await.map_err(|error| unwritten(&error)),
            None => Ok(()),
        }
    }

    async fn media(self, name: Option<String>, media_type: Option<String>) -> Result<Media, JobError> {
        let Some((held, mut file)) = self.file else {
            return Ok(Media::memory(Bytes::from(self.memory), name, media_type));
        };
        file.flush().await.map_err(|error| unwritten(&error))?;
        let body = MediaBody::File(held.path().to_owned());
        Ok(Media { name, media_type, bytes: self.bytes, body, held: Some(Arc::new(held)) })
    }
}

fn refused(why: String) -> JobError {
    JobError::new(ErrorCode::UrlNotAllowed, why)
}

fn failed(url: &Url, why: &dyn std::fmt::Display) -> JobError {
    JobError::new(ErrorCode::UrlFailed, format!("{url} could not be fetched: {why}"))
}

fn unwritten(error: &std::io::Error) -> JobError {
    JobError::new(ErrorCode::StoreUnavailable, format!("the node's cache cannot be written: {error}"))
}

/// Whether `url` has the prefix's scheme, host and port, and a path at or below its path.
fn is_below(url: &Url, prefix: &str) -> bool {
    let Ok(prefix) = Url::parse(prefix) else { return false };
    let folder = prefix.path().trim_end_matches('/');
    let path = url.path().strip_prefix(folder);
    prefix.origin() == url.origin() && path.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
