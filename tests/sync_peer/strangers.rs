//! Strangers, on both sides, with TLS of their own that breaks the rules.

use std::{io, net::SocketAddr, sync::Arc};

use causeway::{model::ca::Leaf, sync::peer::PeerError};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::rig::{Agent, Ca, DOMAIN, PATIENCE, id, pair};

/// Trusts everybody.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn chain(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(leaf.key_pem.expose().as_bytes()).unwrap())
}

/// A client that presents this leaf, or none, and believes everybody.
fn client(leaf: Option<&Leaf>) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match leaf.map(chain) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Begins to speak HTTP/2 as that leaf's holder. Gives the first byte of an answer, or why there is none.
pub(super) async fn speak(to: SocketAddr, sni: &str, leaf: Option<&Leaf>) -> io::Result<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let spoken = async {
        let stream = TcpStream::connect(to).await?;
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut stream = client(leaf).connect(name, stream).await?;
        stream.write_all(PREFACE).await?;
        stream.read_u8().await
    };
    timeout(PATIENCE, spoken).await.unwrap()
}

fn strangers(ca: &Ca) -> Vec<(&'static str, Leaf)> {
    let web = format!("spiffe://{DOMAIN}/ns/default/dc/secondary/svc/web");
    let (ours, primary) = (id("secondary"), id("primary"));
    vec![
        ("another service", ca.leaf(&[&web])),
        (
            "another trust domain",
            ca.leaf(&["spiffe://other.consul/ns/default/dc/secondary/svc/causeway-sync"]),
        ),
        ("another datacenter", ca.leaf(&[&id("tertiary")])),
        ("two names", ca.leaf(&[&ours, &primary])),
        ("the same name twice", ca.leaf(&[&ours, &ours])),
        ("no name", ca.leaf(&[])),
        ("another authority", Ca::new().leaf(&[&ours])),
    ]
}

#[tokio::test]
async fn a_stranger_that_calls_is_refused() {
    let ca = Ca::new();
    let (_near, far) = pair(&ca).await;
    let sni = format!("causeway-sync.default.primary.internal.{DOMAIN}");
    speak(far.address, &sni, Some(&ca.leaf(&[&id("secondary")]))).await.expect("a peer is answered");
    for (who, leaf) in strangers(&ca) {
        let refused = speak(far.address, &sni, Some(&leaf)).await.expect_err(who);
        println!("{who}: {refused}");
    }
    speak(far.address, &sni, None).await.expect_err("nobody");
    assert_eq!(far.double.begun(), 0);
}

#[tokio::test]
async fn a_stranger_that_is_called_is_refused() {
    let ca = Ca::new();
    let mut all = strangers(&ca);
    all.push(("a peer of another datacenter than the one that is meant", ca.leaf(&[&id("secondary")])));
    for (who, leaf) in all {
        let (chain, key) = chain(&leaf);
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = Agent::start("secondary", &ca).await;
        near.route("primary", &[listener.local_addr().unwrap()]);
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(config)).accept(stream).await
        };
        let (asked, served) = tokio::join!(near.ask("primary", "/echo", PATIENCE), serve);
        assert!(matches!(asked, Err(PeerError::Misfit(_))), "{who}: {asked:?}");
        // It learns nothing, the client's certificate included: the alert comes instead.
        assert!(served.is_err(), "{who}");
    }
}

#[tokio::test]
async fn garbage_and_silence_end_by_themselves() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16; 300], &[0; 70_000]] {
        let mut stream = TcpStream::connect(far.address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    }
    let mut mute = TcpStream::connect(far.address).await.unwrap();
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, mute.read_to_end(&mut answer)).await.unwrap().unwrap();
}
