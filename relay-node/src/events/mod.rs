//! Events of jobs: how they are written, found again, put in order and brought to whoever watches.

pub mod catch_up;
pub mod feed;
pub mod find;
pub mod hub;
pub mod order;
pub mod route;
pub mod write;

#[cfg(test)]
mod order_test;
