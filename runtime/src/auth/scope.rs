//! What a caller may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// Submit jobs and upload their input.
    JobsWrite,
    /// See the tenant's jobs, events and results.
    JobsRead,
    /// Cancel the tenant's jobs.
    JobsCancel,
    /// Publish live streams.
    StreamsPublish,
    /// Subscribe to live streams.
    StreamsSubscribe,
    /// See nodes, backends and sessions of the cluster.
    ClusterRead,
    /// Speak to the coordinator as a relay node.
    ClusterNode,
    /// Everything, including all of the above.
    Admin,
}

/// A text that names no [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}; there are {list}", list = Scope::list())]
pub struct UnknownScope(pub String);

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 8] = [
        Self::JobsWrite,
        Self::JobsRead,
        Self::JobsCancel,
        Self::StreamsPublish,
        Self::StreamsSubscribe,
        Self::ClusterRead,
        Self::ClusterNode,
        Self::Admin,
    ];

    /// The name in settings and in a JWT's `scope` claim.
    pub fn name(self) -> &'static str {
        match self {
            Self::JobsWrite => "jobs:write",
            Self::JobsRead => "jobs:read",
            Self::JobsCancel => "jobs:cancel",
            Self::StreamsPublish => "streams:publish",
            Self::StreamsSubscribe => "streams:subscribe",
            Self::ClusterRead => "cluster:read",
            Self::ClusterNode => "cluster:node",
            Self::Admin => "admin",
        }
    }

    fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or_else(|| UnknownScope(name.to_owned()))
    }
}

/// Some scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is in the set, or [`Scope::Admin`] is, which implies it.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether nothing is allowed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes as they were given, without what `admin` implies.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Reads a JWT's `scope` claim: names between blanks; names that are not ours (such as `openid`) are passed over.
    pub fn from_claim(claim: &str) -> Self {
        claim.split_ascii_whitespace().filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Scope::name).collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeSet({self})")
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    /// A list of names; an unknown one is an error.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse()).collect::<Result<Self, UnknownScope>>().map_err(serde::de::Error::custom)
    }
}
