//! The object store of a cluster, as a folder and as a bucket of a real S3-compatible server (moto): uploads that are cut
//! and go on, quotas, what the sweep leaves, and inputs that nodes fetch from URLs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails here")]

#[path = "store/cluster.rs"]
mod cluster;
#[path = "store/http_uploads.rs"]
mod http_uploads;
#[path = "store/identity.rs"]
mod identity;
#[path = "store/quota.rs"]
mod quota;
#[path = "store/s3.rs"]
mod s3;
#[path = "support/submit.rs"]
mod submit;
#[path = "store/sweep.rs"]
mod sweep;
#[path = "store/uploads.rs"]
mod uploads;
#[path = "store/urls.rs"]
mod urls;
#[path = "store/whole.rs"]
mod whole;
#[path = "store/wire.rs"]
mod wire;
