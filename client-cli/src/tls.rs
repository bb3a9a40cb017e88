//! Which certificates are trusted: the public ones, or those of a file.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::Connector;

use crate::error::ClientError;
use crate::settings::ClientSettings;

/// Installs the process's TLS provider, unless the program has one already.
pub(crate) fn install_crypto() {
    static ONCE: OnceLock<()> = OnceLock::new();
    // An error says that the program installed one before: that one is used.
    ONCE.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// What a client trusts.
pub(crate) struct Trust {
    /// `None`: the public authorities.
    only: Option<Authorities>,
}

struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Reads the settings' file of certificates, if they name one.
    ///
    /// # Errors
    /// [`ClientError::Settings`] if it cannot be read or has no certificate of an authority.
    pub(crate) fn of(settings: &ClientSettings) -> Result<Self, ClientError> {
        install_crypto();
        let only = settings.ca_file.as_deref().map(Authorities::read).transpose()?;
        Ok(Self { only })
    }

    /// For a WebSocket; `None` trusts the public authorities.
    pub(crate) fn connector(&self) -> Option<Connector> {
        self.only.as_ref().map(|only| Connector::Rustls(only.config.clone()))
    }

    /// For HTTP.
    ///
    /// # Errors
    /// [`ClientError::Settings`].
    pub(crate) fn http(&self) -> Result<reqwest::ClientBuilder, ClientError> {
        let builder = reqwest::Client::builder();
        let Some(only) = &self.only else { return Ok(builder) };
        let certificates = only.certificates.iter().map(|certificate| reqwest::Certificate::from_der(certificate));
        let certificates = certificates
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ClientError::Settings(format!("a certificate of the CA file cannot be used: {error}")))?;
        Ok(builder.tls_certs_only(certificates))
    }
}

impl Authorities {
    fn read(path: &Path) -> Result<Self, ClientError> {
        let shown = path.display();
        let wrong = |error: &dyn std::fmt::Display| ClientError::Settings(format!("CA file {shown}: {error}"));
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| wrong(&error))?;
        if certificates.is_empty() {
            return Err(wrong(&"there is no certificate in it: it must have one or more in PEM"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| wrong(&error))?;
        }
        let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        Ok(Self { certificates, config })
    }
}
