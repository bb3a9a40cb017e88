//! The coordinator of a media relay cluster: who is alive, where sessions go, which node may use which backend slot; it
//! creates and checks the topics. What it knows can be told anew by the nodes; losing it stops nothing that runs.
//!
//! Decisions are pure cores without clock and I/O: [`election::core`], [`leases`], [`placement`], [`registry::core`], [`topics::specs`],
//! [`view::projection`]. Around them are one actor ([`registry::actor`]), tasks ([`backends::watch`], [`topics::keeper`],
//! [`election::candidate`], [`audit`], [`view::reader`]) and the HTTP API ([`http`]). [`node`] is the only place that wires them together.

pub mod audit;
pub mod backends;
pub mod election;
pub mod http;
pub mod leases;
pub mod metrics;
pub mod node;
pub mod placement;
pub mod registry;
pub mod settings;
pub mod topics;
pub mod view;

pub use self::node::Coordinator;
pub use self::settings::Settings;
