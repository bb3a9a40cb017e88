//! From a lane to outcomes: which jobs this node works on, and what of it is committed.

pub mod cancels;
pub mod control;
pub mod core;
pub mod decided;
pub mod dedup;
pub mod dedup_topic;
pub mod earlier;
pub mod fresh;
pub mod keeping;
pub mod lane;
pub mod line;
pub mod lost_group;
pub mod progress;
pub mod remote;
pub mod retention;
pub mod room;
pub mod rooms;
pub mod same;
pub mod side;
pub mod side_topic;
pub mod starts;
pub mod tracker;

#[cfg(test)]
mod core_test;
#[cfg(test)]
mod dedup_test;
#[cfg(test)]
mod dedup_topic_test;
#[cfg(test)]
mod earlier_test;
#[cfg(test)]
mod hand_over_test;
#[cfg(test)]
mod remote_test;
#[cfg(test)]
mod retention_test;
#[cfg(test)]
mod room_test;
#[cfg(test)]
mod same_test;
#[cfg(test)]
mod side_test;
#[cfg(test)]
mod starts_test;
#[cfg(test)]
mod tracker_test;
