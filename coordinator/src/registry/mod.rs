//! Who is in the cluster: nodes, their sessions, backends. One writer (an actor, [`actor`]) around a pure core
//! ([`core`]); readers take a snapshot ([`view`]) and never wait for the writer.

pub mod actor;
mod backends;
pub mod core;
pub mod view;

pub use self::actor::{RegistryError, RegistryHandle};
pub use self::core::{HeartbeatRefusal, Registry, RegistryRules};
pub use self::view::View;
