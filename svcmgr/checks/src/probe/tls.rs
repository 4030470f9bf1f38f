//! TLS for a test: with a certificate that counts, or any.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libilb::health::{Code, Layer};
use libilb::healthcheck::{CA_FILE, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::Stream;
use crate::outcome::Failure;

/// How long a file of certificates is not read again.
const FRESH: Duration = Duration::from_secs(60);
/// Largest file of certificates.
const MAX_FILE: u64 = 16 << 20;

/// Certificates that are trusted, by the file that they are in; nothing for no trust at all.
type Configs = HashMap<Option<String>, (Instant, Arc<ClientConfig>)>;

/// Settings for TLS, read once a minute at most. Copies share them.
#[derive(Debug, Clone, Default)]
pub struct Trust(Arc<Mutex<Configs>>);

impl Trust {
    /// The settings for a check.
    pub(crate) async fn config(&self, tls: &Tls) -> Result<Arc<ClientConfig>, Failure> {
        let file = tls
            .verify
            .then(|| tls.ca_file.clone().unwrap_or_else(|| CA_FILE.to_string()));
        let known = self.lock().get(&file).cloned();
        if let Some((read, config)) = known
            && (file.is_none() || read.elapsed() < FRESH)
        {
            return Ok(config);
        }
        let config = match file.clone() {
            None => any_certificate(),
            Some(path) => {
                let read = tokio::task::spawn_blocking(move || trusted(&path)).await;
                read.map_err(|_| cannot("read certificates".to_string()))?
            }
        }?;
        let config = Arc::new(config);
        self.lock().insert(file, (Instant::now(), config.clone()));
        Ok(config)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Configs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cannot(words: String) -> Failure {
    Failure::new(Layer::Local, Code::NotAsked, words)
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot(format!("cannot use TLS: {error}")))
}

fn any_certificate() -> Result<ClientConfig, Failure> {
    let verifier = Anyone(rustls::crypto::ring::default_provider());
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// Blocks.
fn trusted(path: &str) -> Result<ClientConfig, Failure> {
    let failed = |why: String| cannot(format!("cannot read certificates from {path}: {why}"));
    let length = std::fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    if length > MAX_FILE {
        return Err(failed(format!("it has {length} octets")));
    }
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in all {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        // One that cannot be used does no harm.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(failed("there is none that can be used".to_string()));
    }
    Ok(builder()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The name that the server is asked for: as the check says, else its virtual host, else its address.
pub fn server_name(
    tls: &Tls,
    host: Option<&str>,
    address: IpAddr,
) -> Result<ServerName<'static>, Failure> {
    let host = host.map(without_port);
    match tls.sni.as_deref().or(host) {
        Some(name) => ServerName::try_from(name.to_string())
            .map_err(|_| cannot(format!("'{name}' cannot be asked for: it is no host name"))),
        None => Ok(ServerName::from(address)),
    }
}

fn without_port(host: &str) -> &str {
    match (host.strip_prefix('['), host.rsplit_once(':')) {
        (Some(rest), _) => rest.split(']').next().unwrap_or(rest),
        (None, Some((name, port)))
            if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

/// Shakes hands.
pub async fn handshake(
    stream: Stream,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<Stream>, Failure> {
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    shaken.map_err(|error| explain(&error))
}

fn explain(error: &io::Error) -> Failure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let failed = |code, words: String| Failure::new(Layer::L6, code, words);
    match tls {
        None => {
            let failure = Failure::of_socket(Layer::L6, error);
            match failure.code {
                Code::Closed => failed(Code::Closed, "closed during the TLS handshake".to_string()),
                _ => failure,
            }
        }
        Some(Error::InvalidCertificate(problem)) => failed(Code::Certificate, certificate(problem)),
        Some(Error::NoCertificatesPresented) => failed(
            Code::Certificate,
            "the server has no certificate".to_string(),
        ),
        Some(Error::AlertReceived(alert)) => {
            failed(Code::Handshake, format!("the server refuses: {alert:?}"))
        }
        Some(Error::InvalidMessage(_)) => {
            failed(Code::Handshake, "the server does not speak TLS".to_string())
        }
        Some(other) => failed(Code::Handshake, other.to_string()),
    }
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired => "the certificate has expired".to_string(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_string(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", date(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "the certificate's issuer is not trusted (ca-file names those who are)".to_string()
        }
        CertificateError::NotValidForName => {
            "the certificate is for another name (sni says which is asked for)".to_string()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the certificate is for {}, not for {}",
            presented.join(", "),
            expected.to_str()
        ),
        other => format!("the certificate cannot be trusted: {other}"),
    }
}

/// A day, UTC.
fn date(time: UnixTime) -> String {
    // Days since 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = time.as_secs() / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Takes any certificate: it is asked whether the server lives, not who it is.
#[derive(Debug)]
struct Anyone(CryptoProvider);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_704_067_199, "2023-12-31"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(
                date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))),
                expected
            );
        }
    }

    #[test]
    fn a_virtual_host_names_the_server_without_its_port() {
        for (host, name) in [
            ("www.example.com", "www.example.com"),
            ("www.example.com:8443", "www.example.com"),
            ("[2001:db8::1]:8443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
