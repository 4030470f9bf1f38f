//! TLS 1.3 (RFC 8446) with raw public keys (RFC 7250) on both sides, and with nobody but the node that is meant.
//!
//! No session is resumed: each has keys of its own from a fresh X25519 exchange, which nobody can have afterwards.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use crate::greeting::Greeting;
use crate::identity::{Identity, PublicKey};

/// Whose session it may be.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// The owner of this key.
    Key(PublicKey),
    /// Whoever made this greeting.
    Maker(Box<Greeting>),
}

/// Tests the key of the other end.
#[derive(Debug)]
struct Pinned {
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    })
}

impl Pinned {
    fn new(expected: Expected) -> Arc<Pinned> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Arc::new(Pinned {
            expected,
            algorithms,
        })
    }

    fn test(&self, raw: &CertificateDer<'_>) -> Result<(), Error> {
        let key = PublicKey::from_spki(raw).ok_or(CertificateError::BadEncoding)?;
        let right = match &self.expected {
            Expected::Key(expected) => *expected == key,
            Expected::Maker(greeting) => greeting.is_by(&key),
        };
        match right {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn signature(
        &self,
        said: &[u8],
        raw: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(raw.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(said, &key, signature, &self.algorithms)
    }
}

const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ED25519];

/// Never asked: TLS 1.2 is not spoken.
fn not_before_tls13<T>() -> Result<T, Error> {
    Err(Error::General("TLS 1.2 is not spoken".to_string()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        raw: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.test(raw).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_before_tls13()
    }

    fn verify_tls13_signature(
        &self,
        said: &[u8],
        raw: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(said, raw, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        raw: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.test(raw).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        not_before_tls13()
    }

    fn verify_tls13_signature(
        &self,
        said: &[u8],
        raw: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(said, raw, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// For the one who dials.
pub(crate) fn client(identity: &Identity, expected: Expected) -> Result<ClientConfig, Error> {
    let ours = AlwaysResolvesClientRawPublicKeys::new(identity.certified());
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Pinned::new(expected))
        .with_client_cert_resolver(Arc::new(ours));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// For the one who is dialled.
pub(crate) fn server(identity: &Identity, expected: Expected) -> Result<ServerConfig, Error> {
    let ours = AlwaysResolvesServerRawPublicKeys::new(identity.certified());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Pinned::new(expected))
        .with_cert_resolver(Arc::new(ours));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
