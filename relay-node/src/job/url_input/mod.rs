//! Inputs that a node fetches itself: only from an allow-list, without redirects, never from private addresses unless
//! the list names them.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use relay_protocol::{ErrorCode, JobError};
use url::{Host, Url};

use super::media::Media;

/// Fetches inputs.
#[derive(Debug, Clone)]
pub struct UrlInputs {
    allowed: Vec<String>,
    bytes_max: u64,
    timeout: Duration,
}

impl UrlInputs {
    /// `allowed` are prefixes of URLs (scheme, host and path); none means that no URL is fetched.
    pub fn new(allowed: Vec<String>, bytes_max: u64, timeout: Duration) -> Self {
        Self { allowed, bytes_max, timeout }
    }

    /// Checks a URL against the allow-list.
    ///
    /// # Errors
    /// [`ErrorCode::UrlNotAllowed`] with what to do.
    pub fn check(&self, text: &str) -> Result<Url, JobError> {
        let refuse = |why: String| Err(JobError::new(ErrorCode::UrlNotAllowed, why));
        let Ok(url) = Url::parse(text) else { return refuse(format!("{text:?} is not a URL")) };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse(format!("only http and https URLs are fetched, not {}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("a URL with a user name or password is not fetched".to_owned());
        }
        if !self.allowed.iter().any(|prefix| is_below(&url, prefix)) {
            return refuse(format!(
                "{} is not on this relay's allow-list: add its prefix to inputs.url_allow, or upload the file",
                url.origin().ascii_serialization()
            ));
        }
        Ok(url)
    }

    /// Fetches the URL's bytes.
    ///
    /// # Errors
    /// [`ErrorCode::UrlNotAllowed`], [`ErrorCode::UrlFailed`], [`ErrorCode::TooLarge`], [`ErrorCode::EmptyMedia`].
    pub async fn fetch(&self, text: &str) -> Result<Media, JobError> {
        let url = self.check(text)?;
        let failed = |why: String| JobError::new(ErrorCode::UrlFailed, format!("{url} could not be fetched: {why}"));
        let client = self.client(&url).await?;
        let response = client.get(url.clone()).send().await.map_err(|error| failed(error.to_string()))?;
        if !response.status().is_success() {
            let retryable = response.status().is_server_error();
            return Err(failed(format!("the server answered {}", response.status())).with_retryable(retryable));
        }
        let media_type =
            response.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| failed(error.to_string()))?;
            if (bytes.len() + part.len()) as u64 > self.bytes_max {
                let limit = self.bytes_max;
                return Err(JobError::new(ErrorCode::TooLarge, format!("{url} has more than {limit} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        if bytes.is_empty() {
            return Err(JobError::new(ErrorCode::EmptyMedia, format!("{url} is empty")));
        }
        let name = url.path_segments().and_then(|mut path| path.next_back()).filter(|name| !name.is_empty());
        Ok(Media::memory(Bytes::from(bytes), name.map(str::to_owned), media_type))
    }

    /// A client that connects to the addresses checked here and to no others.
    async fn client(&self, url: &Url) -> Result<reqwest::Client, JobError> {
        let failed = |why: String| JobError::new(ErrorCode::UrlFailed, format!("{url} could not be fetched: {why}"));
        let mut builder =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(self.timeout).no_proxy();
        if let Some(Host::Domain(domain)) = url.host() {
            let port = url.port_or_known_default().unwrap_or(80);
            let found = tokio::net::lookup_host((domain, port)).await.map_err(|error| failed(error.to_string()))?;
            let addresses: Vec<_> = found.collect();
            if addresses.iter().any(|address| is_private(address.ip())) {
                let why = format!("{domain} leads to a private address; name the address itself in inputs.url_allow");
                return Err(JobError::new(ErrorCode::UrlNotAllowed, why));
            }
            builder = builder.resolve_to_addrs(domain, &addresses);
        }
        builder.build().map_err(|error| failed(error.to_string()))
    }
}

/// Whether `url` has the prefix's scheme, host and port, and a path at or below its path.
fn is_below(url: &Url, prefix: &str) -> bool {
    let Ok(prefix) = Url::parse(prefix) else { return false };
    let folder = prefix.path().trim_end_matches('/');
    let path = url.path().strip_prefix(folder);
    prefix.origin() == url.origin() && path.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Loopback, link-local, private, shared, multicast and unspecified addresses, IPv4 inside IPv6 too.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}
