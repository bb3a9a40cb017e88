//! The one TLS provider of a process.

/// Makes ring the process's TLS provider; without one, every rustls client and server refuses to be built.
///
/// Call it first in `main`. Later calls, and a provider that something else installed before, change nothing.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Err only when another thread was quicker: then a provider is there, which is all that is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
