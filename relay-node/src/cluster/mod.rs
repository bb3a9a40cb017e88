//! The node's tie to the coordinator. Without one, or while it is away, the node goes on with what it has.

pub mod fixed;
pub mod leader;
pub mod lease;
pub mod link;
pub mod wire;
