//! TLS contexts. Certificates and roots are named and fetched as SDS, so that a rotation re-warms nothing.

use std::collections::BTreeSet;

use envoy_types::{
    pb::envoy::{
        config::core::v3::{TransportSocket, transport_socket},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
            SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            subject_alt_name_matcher::SanType,
            tls_parameters::TlsProtocol,
        },
    },
    util::pack_any,
};

use crate::{
    model::mesh::{TlsParams, TlsVersion},
    xds::{
        encode::{
            Source,
            value::{config_source, exactly, yes},
        },
        resource::{cluster::UpstreamTls, listener::DownstreamTls, secret::TlsSecrets},
    },
};

const SOCKET: &str = "envoy.transport_sockets.tls";

pub(super) fn upstream(tls: &UpstreamTls, source: &Source) -> TransportSocket {
    let validation = peer_is_one_of(&tls.sans, &tls.secrets, source);
    let context = UpstreamTlsContext {
        sni: tls.sni.clone(),
        common_tls_context: Some(common(&tls.secrets, &tls.params, validation, source)),
        ..UpstreamTlsContext::default()
    };
    socket(transport_socket::ConfigType::TypedConfig(pack_any(context)))
}

pub(super) fn downstream(tls: &DownstreamTls, source: &Source) -> TransportSocket {
    let validation = ValidationContextType::ValidationContextSdsSecretConfig(sds(&tls.secrets.roots, source));
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: tls.alpn.clone(),
            ..common(&tls.secrets, &tls.params, validation, source)
        }),
        require_client_certificate: Some(yes()),
        ..DownstreamTlsContext::default()
    };
    socket(transport_socket::ConfigType::TypedConfig(pack_any(context)))
}

fn socket(config: transport_socket::ConfigType) -> TransportSocket {
    TransportSocket { name: SOCKET.to_owned(), config_type: Some(config) }
}

fn common(
    secrets: &TlsSecrets,
    params: &TlsParams,
    validation: ValidationContextType,
    source: &Source,
) -> CommonTlsContext {
    CommonTlsContext {
        tls_params: Some(parameters(params)),
        tls_certificate_sds_secret_configs: vec![sds(&secrets.leaf, source)],
        validation_context_type: Some(validation),
        ..CommonTlsContext::default()
    }
}

fn parameters(params: &TlsParams) -> TlsParameters {
    let version = |version| match version {
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    TlsParameters {
        tls_minimum_protocol_version: version(params.min).into(),
        tls_maximum_protocol_version: params.max.map_or(TlsProtocol::TlsAuto, version).into(),
        cipher_suites: params.ciphers.clone(),
        ..TlsParameters::default()
    }
}

/// The chain must end in the roots and the peer present one of these ids.
fn peer_is_one_of(sans: &BTreeSet<String>, secrets: &TlsSecrets, source: &Source) -> ValidationContextType {
    let matchers = sans
        .iter()
        .map(|san| SubjectAltNameMatcher {
            san_type: SanType::Uri.into(),
            matcher: Some(exactly(san)),
            ..SubjectAltNameMatcher::default()
        })
        .collect();
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: matchers,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(sds(&secrets.roots, source)),
        ..CombinedCertificateValidationContext::default()
    })
}

fn sds(name: &str, source: &Source) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(config_source(source)) }
}
