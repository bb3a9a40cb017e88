//! How requests reach a backend: at its own URL, or at an address that a DNS name led to, under that name.
//!
//! A name can lead to many servers, and a client that is given the name alone connects to any of them. So the connection is
//! made to the one address, while the `Host` header, the TLS server name and the name in the certificate stay the name's.

use std::net::{IpAddr, SocketAddr};

use reqwest::header::HOST;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Url};

/// Why a backend cannot be reached by any request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// A URL is none, or not of the kind that it must be.
    #[error("{url:?} is no URL of a backend: {problem}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No HTTP client can be made.
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// The way to one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reach {
    client: Client,
    /// Parsed once: it is the same for each request.
    base: Url,
    host: Option<String>,
}

impl Reach {
    /// The way to `url` over `shared`; if a name led to it, whose URL is `via`, under that name. Over TLS that takes a client
    /// of its own, made from `builder`: connections are shared by name, and this one must end at this address.
    ///
    /// # Errors
    /// [`ReachError`].
    pub fn new(
        shared: &Client,
        builder: impl FnOnce() -> ClientBuilder,
        url: &str,
        via: Option<&str>,
    ) -> Result<Self, ReachError> {
        let at = parse(url)?;
        let Some(via) = via else { return Ok(Self { client: shared.clone(), base: at, host: None }) };
        let named = parse(via)?;
        let name = named.host_str().unwrap_or_default();
        if named.scheme() == "https" {
            let client = builder().resolve(name, address(&at)?).build()?;
            return Ok(Self { client, base: named, host: None });
        }
        let host = named.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        Ok(Self { client: shared.clone(), base: at, host: Some(host) })
    }

    /// A request to `path`, which begins with a slash and has no query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        match self.base.path() {
            "/" => url.set_path(path),
            prefix => url.set_path(&format!("{}{path}", prefix.trim_end_matches('/'))),
        }
        let request = self.client.request(method, url);
        match &self.host {
            Some(host) => request.header(HOST, host),
            None => request,
        }
    }
}

fn parse(url: &str) -> Result<Url, ReachError> {
    Url::parse(url).map_err(|error| ReachError::Url { url: url.to_owned(), problem: error.to_string() })
}

fn address(url: &Url) -> Result<SocketAddr, ReachError> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let none = |problem: &str| ReachError::Url { url: url.to_string(), problem: problem.to_owned() };
    let ip: IpAddr = host.parse().map_err(|_| none("its host is no address"))?;
    Ok(SocketAddr::new(ip, url.port_or_known_default().ok_or_else(|| none("it has no port"))?))
}
