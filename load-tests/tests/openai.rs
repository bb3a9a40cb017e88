//! The OpenAI-compatible API in front of simulated LocalAI servers: what passes, what is tried elsewhere, what is refused.

#[path = "openai/cluster.rs"]
mod cluster;

#[path = "openai/durable.rs"]
mod durable;
#[path = "openai/elsewhere.rs"]
mod elsewhere;
#[path = "openai/official.rs"]
mod official;
#[path = "openai/passed_on.rs"]
mod passed_on;
#[path = "openai/refused.rs"]
mod refused;
#[path = "openai/slow_client.rs"]
mod slow_client;
#[path = "openai/tenants.rs"]
mod tenants;
