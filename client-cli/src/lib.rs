//! The Rust SDK of the media relay, and the CLI that is made of it.
//!
//! [`Client::connect`] opens a session on a node; [`Client::submit`] makes a job durable and returns a [`JobHandle`], whose
//! [`JobHandle::next_event`] yields the job's events up to the terminal one, over any number of connections. One task owns
//! the connection and carries any number of requests and jobs at a time.

mod clock;
mod commands;
mod connection;
mod output;
mod queue;
mod tls;
mod upload;

pub mod cli;
pub mod client;
pub mod error;
mod fetch;
pub mod job;
pub mod settings;

pub use client::Client;
pub use error::ClientError;
pub use job::{ClientEvent, JobHandle, JobInput, JobRequest};
pub use settings::ClientSettings;
