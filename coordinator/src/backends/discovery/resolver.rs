//! Asks the DNS: every A and AAAA record of a name, each time anew.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::timeout;

use super::core::Answer;
use crate::backends::entry::{DnsEntry, Family};

/// Times that a server is asked within one look-up.
const TRIES: u32 = 2;

/// Asks about names.
#[derive(Debug, Clone)]
pub struct NameResolver {
    servers: Vec<SocketAddr>,
    patience: Duration,
}

impl NameResolver {
    /// Asks `servers`, or those of the system if there are none, and waits for `patience` at most.
    pub fn new(servers: Vec<SocketAddr>, patience: Duration) -> Self {
        Self { servers, patience }
    }

    /// The addresses of a name: those of its A records, and those of its AAAA records.
    pub async fn ask(&self, entry: &DnsEntry) -> (Answer, Answer) {
        let wanted = |family| entry.family == Family::Any || entry.family == family;
        let one = async |family, strategy| match wanted(family) {
            true => self.lookup(&entry.name, strategy).await,
            false => Answer::Nothing,
        };
        tokio::join!(one(Family::V4, LookupIpStrategy::Ipv4Only), one(Family::V6, LookupIpStrategy::Ipv6Only))
    }

    async fn lookup(&self, name: &str, strategy: LookupIpStrategy) -> Answer {
        let resolver = match self.resolver(strategy) {
            Ok(resolver) => resolver,
            Err(error) => return Answer::Failed(error.to_string()),
        };
        match timeout(self.patience, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => {
                let found: std::collections::BTreeSet<IpAddr> = found.iter().collect();
                if found.is_empty() { Answer::Nothing } else { Answer::Found(found) }
            }
            Ok(Err(error)) if error.is_no_records_found() => Answer::Nothing,
            Ok(Err(error)) => Answer::Failed(error.to_string()),
            Err(_) => Answer::Failed(format!("no answer within {} ms", self.patience.as_millis())),
        }
    }

    /// Made for each look-up: the system's settings may have changed, and nothing is remembered from the one before.
    fn resolver(&self, strategy: LookupIpStrategy) -> Result<TokioResolver, NetError> {
        let mut builder = match self.servers.as_slice() {
            [] => TokioResolver::builder_tokio()?,
            servers => {
                let servers = servers.iter().map(server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.ip_strategy = strategy;
        options.cache_size = 0;
        options.attempts = TRIES as usize;
        options.timeout = self.patience / TRIES;
        builder.build()
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())])
}
