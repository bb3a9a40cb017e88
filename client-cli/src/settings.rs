//! Settings of a client.

use std::path::PathBuf;
use std::time::Duration;

use relay_protocol::limits::{IDLE_TIMEOUT_MS, SESSION_JOBS_MAX};
use url::Url;

use crate::error::ClientError;

/// Server that is used when none is named.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8700";

/// How a client finds its node and when it gives up. Every field has a default; that of `servers` is
/// [`DEFAULT_SERVER`].
#[derive(Clone)]
pub struct ClientSettings {
    /// URLs of nodes, separated by commas: `http`, `https`, `ws` or `wss`.
    pub servers: String,
    /// Bearer token.
    pub token: Option<String>,
    /// PEM file of the certificate authorities that may vouch for a server of scheme `https` or `wss`, instead of the public
    /// ones. Default none.
    pub ca_file: Option<PathBuf>,
    /// When the first connection is given up. Default 5 s.
    pub connect_timeout: Duration,
    /// When a lost connection is given up: so long after the loss no server said anything after its welcome. Default 60 s.
    pub reconnect_timeout: Duration,
    /// How long one server may take from the TCP connection to its welcome. Default 2 s, so that a
    /// server that stays silent leaves time for the next one.
    pub attempt_timeout: Duration,
    /// How long a server may take to say which node to use. Default 1 s.
    pub placement_timeout: Duration,
    /// Silence after which a connection is taken for dead. Default 30 s.
    pub idle_timeout: Duration,
    /// Delay before the second try to connect; doubles up to `retry_delay_max`, with jitter. Default 100 ms.
    pub retry_delay_min: Duration,
    /// Longest delay between two tries. Default 5 s.
    pub retry_delay_max: Duration,
    /// Jobs that may be submitted or watched at a time; further ones wait. Default and highest 1024.
    pub jobs_in_flight_max: usize,
    /// Whether a server is asked for the node to use. Default true.
    pub placement: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            servers: DEFAULT_SERVER.to_owned(),
            token: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            reconnect_timeout: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(2),
            placement_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_millis(IDLE_TIMEOUT_MS),
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(5),
            jobs_in_flight_max: SESSION_JOBS_MAX,
            placement: true,
        }
    }
}

impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSettings")
            .field("servers", &self.servers)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("ca_file", &self.ca_file)
            .field("connect_timeout", &self.connect_timeout)
            .field("reconnect_timeout", &self.reconnect_timeout)
            .finish_non_exhaustive()
    }
}

impl ClientSettings {
    /// The servers' URLs.
    ///
    /// # Errors
    /// [`ClientError::Settings`] if there is none, or one is no URL of a known scheme.
    pub fn server_urls(&self) -> Result<Vec<Url>, ClientError> {
        let urls: Vec<Url> = self
            .servers
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(server_url)
            .collect::<Result<_, _>>()?;
        if urls.is_empty() {
            return Err(ClientError::Settings("no server is named".to_owned()));
        }
        Ok(urls)
    }
}

/// Reads the URL of a server.
///
/// # Errors
/// [`ClientError::Settings`] if it is none of scheme `http`, `https`, `ws` or `wss`.
pub(crate) fn server_url(text: &str) -> Result<Url, ClientError> {
    let url = Url::parse(text).map_err(|error| ClientError::Settings(format!("{text:?} is no URL: {error}")))?;
    match url.scheme() {
        "http" | "https" | "ws" | "wss" if url.has_host() => Ok(url),
        _ => Err(ClientError::Settings(format!("{text:?} is no http, https, ws or wss URL"))),
    }
}

/// `base` with `path` at its end, over HTTP.
pub(crate) fn http_url(base: &Url, path: &str) -> String {
    at(base, path, "http", "https")
}

/// `base` with `path` at its end, over WebSocket.
pub(crate) fn ws_url(base: &Url, path: &str) -> String {
    at(base, path, "ws", "wss")
}

fn at(base: &Url, path: &str, plain: &str, secure: &str) -> String {
    let scheme = if matches!(base.scheme(), "https" | "wss") { secure } else { plain };
    let authority = base[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    format!("{scheme}://{authority}{}{path}", base.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_place_and_change_their_scheme() {
        let base = server_url("https://relay.example:444/media/").unwrap();
        assert_eq!(ws_url(&base, "/v1/connect"), "wss://relay.example:444/media/v1/connect");
        let base = server_url("ws://[::1]:8700").unwrap();
        assert_eq!(http_url(&base, "/v1/nodes"), "http://[::1]:8700/v1/nodes");
    }

    #[test]
    fn servers_are_a_comma_list() {
        let settings = |servers: &str| ClientSettings { servers: servers.to_owned(), ..Default::default() };
        assert_eq!(settings("http://a:1, ws://b:2,").server_urls().unwrap().len(), 2);
        assert!(settings(" , ").server_urls().is_err());
        assert!(settings("ftp://a").server_urls().is_err());
        assert!(settings("localhost:8700").server_urls().is_err());
    }
}
