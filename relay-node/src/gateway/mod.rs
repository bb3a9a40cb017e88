//! The node's one port: sessions over WebSocket, the HTTP job API, health and metrics.

pub mod answer;
mod body;
pub mod connect;
mod denials;
pub mod dlq;
pub mod form;
pub mod handshakes;
pub mod jobs;
mod json;
pub mod moving;
pub mod openai;
pub mod proxy;
pub mod resume_token;
pub mod resumption;
pub mod retry;
pub mod server;
pub mod session;
pub mod sessions;
pub mod sse;
pub mod submit;
pub mod upload;
pub mod uploads;
pub mod view;
mod watch;
