//! From a lane to outcomes: which jobs this node works on, and what of it is committed.

pub mod control;
pub mod core;
pub mod lane;
pub mod room;
pub mod starts;
pub mod tracker;

#[cfg(test)]
mod core_test;
#[cfg(test)]
mod room_test;
#[cfg(test)]
mod tracker_test;
