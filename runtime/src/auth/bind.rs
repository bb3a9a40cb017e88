//! No open door by accident: without identity settings only loopback is bound.

use std::net::{SocketAddr, ToSocketAddrs};

use super::AuthSettings;

/// Why an address is not bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Not `HOST:PORT`, or the host is unknown.
    #[error("cannot listen on {listen:?}: {source}; write HOST:PORT, such as 127.0.0.1:8700")]
    Address {
        /// The setting.
        listen: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
    /// Reachable from other machines, and nobody would have to say who they are.
    #[error("{}", refusal(.0))]
    Open(SocketAddr),
}

/// The addresses behind `listen` (`HOST:PORT`), to be bound as they are. Blocks while a name is resolved: for the start.
///
/// # Errors
/// [`BindError::Open`] when one of them is not loopback and `settings` let everyone in; its text holds the lines to add.
pub fn check_bind(listen: &str, settings: &AuthSettings) -> Result<Vec<SocketAddr>, BindError> {
    let failed = |source| BindError::Address { listen: listen.to_owned(), source };
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs().map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable)));
    }
    if settings.is_open() {
        // Canonical: ::ffff:127.0.0.1 is loopback too.
        if let Some(&address) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(BindError::Open(address));
        }
    }
    Ok(addresses)
}

fn refusal(address: &SocketAddr) -> String {
    format!(
        "refusing to listen on {address} without tokens: whoever reaches it could do everything. Listen on 127.0.0.1, \
or make a token and add its hash, either as a variable:
  RELAY_TOKEN=\"$(head -c 32 /dev/urandom | base64 | tr -d '+/=\\n')\"
  export RELAY__AUTH__TOKENS=\"admin/default/admin/$(printf %s \"$RELAY_TOKEN\" | sha256sum | cut -d ' ' -f 1)\"
or in the configuration file, with what `printf %s \"$RELAY_TOKEN\" | sha256sum` prints:
  [auth]
  tokens = [{{ subject = \"admin\", tenant = \"default\", scopes = [\"admin\"], sha256 = \"...\" }}]
Clients then send the token itself: `Authorization: Bearer $RELAY_TOKEN`"
    )
}
