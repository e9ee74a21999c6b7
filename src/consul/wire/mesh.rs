//! `/v1/config/mesh/mesh`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    consul::wire::{
        Read, WireError,
        read::{is_set, nullable, shown, whole},
        refused::{self, OF_MESH},
    },
    model::{
        mesh::{MeshDefaults, TlsParams, TlsVersion},
        note::Note,
    },
};

const ABOUT: &str = "mesh entry";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireMesh {
    // What answers without it is no Consul.
    #[serde(rename = "Kind")]
    _kind: String,
    #[serde(default, rename = "AllowEnablingPermissiveMutualTLS", deserialize_with = "nullable")]
    allows_permissive: bool,
    #[serde(default, rename = "TLS", deserialize_with = "nullable")]
    tls: WireTls,
    #[serde(default, rename = "HTTP", deserialize_with = "nullable")]
    http: WireHttp,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireTls {
    #[serde(deserialize_with = "nullable")]
    incoming: WireParams,
    #[serde(deserialize_with = "nullable")]
    outgoing: WireParams,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireParams {
    #[serde(rename = "TLSMinVersion", deserialize_with = "nullable")]
    min: String,
    #[serde(rename = "TLSMaxVersion", deserialize_with = "nullable")]
    max: String,
    #[serde(rename = "CipherSuites", deserialize_with = "nullable")]
    ciphers: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireHttp {
    #[serde(rename = "SanitizeXForwardedClientCert", deserialize_with = "nullable")]
    sanitize: bool,
    #[serde(rename = "Incoming", deserialize_with = "nullable")]
    incoming: BTreeMap<String, Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// What the entry tells every proxy.
pub fn mesh(body: &[u8]) -> Result<Read<MeshDefaults>, WireError> {
    let wire: WireMesh = whole(body)?;
    let mut notes = Vec::new();
    if wire.allows_permissive {
        notes.push(Note::new(
            ABOUT,
            "AllowEnablingPermissiveMutualTLS has no effect: callers without a certificate are refused everywhere",
            "leave it out, or expose the paths that such callers need with Expose.Paths",
        ));
    }
    if wire.http.incoming.values().any(is_set) {
        notes.push(Note::new(
            ABOUT,
            "HTTP.Incoming is not built yet: paths and headers of requests are passed on as they come",
            "leave HTTP.Incoming out, or do not count on it",
        ));
    }
    for (field, _) in wire.http.rest.iter().filter(|(_, value)| is_set(value)) {
        notes.push(Note::new(
            ABOUT,
            format!("HTTP.{} is unknown and has no effect", shown(field)),
            format!("leave HTTP.{} out, or do not count on it", shown(field)),
        ));
    }
    refused::note(&wire.rest, &OF_MESH, ABOUT, &mut notes);
    let defaults = MeshDefaults {
        incoming: wire.tls.incoming.params("TLS.Incoming", &mut notes),
        outgoing: wire.tls.outgoing.params("TLS.Outgoing", &mut notes),
        hides_callers: wire.http.sanitize,
    };
    Ok((defaults, notes))
}

impl WireParams {
    fn params(self, section: &str, notes: &mut Vec<Note>) -> TlsParams {
        let mut note = |problem: String, remedy: &str| notes.push(Note::new(ABOUT, problem, remedy));
        let mut version = |text: &str, field: &str| match text {
            "" | "TLS_AUTO" => None,
            "TLSv1_0" => Some(TlsVersion::V1_0),
            "TLSv1_1" => Some(TlsVersion::V1_1),
            "TLSv1_2" => Some(TlsVersion::V1_2),
            "TLSv1_3" => Some(TlsVersion::V1_3),
            other => {
                note(
                    format!("the {section}.{field} `{}` is unknown and does not count", shown(other)),
                    "use TLSv1_0, TLSv1_1, TLSv1_2 or TLSv1_3",
                );
                None
            }
        };
        let min = version(&self.min, "TLSMinVersion").unwrap_or(TlsParams::default().min);
        let mut max = version(&self.max, "TLSMaxVersion");
        if max.is_some_and(|max| max < min) {
            note(
                format!("the {section}.TLSMaxVersion is older than the oldest version, and does not count"),
                "set TLSMaxVersion to TLSMinVersion or newer",
            );
            max = None;
        }
        let mut ciphers = Vec::with_capacity(self.ciphers.len());
        for name in &self.ciphers {
            match cipher(name) {
                Some(cipher) => ciphers.push(cipher.to_owned()),
                None => note(
                    format!("the cipher `{}` of {section} is unknown and is left out", shown(name)),
                    "use one of the names that Consul's documentation of the mesh entry lists",
                ),
            }
        }
        TlsParams { min, max, ciphers }
    }
}

/// Envoy's name of a cipher that Consul names after its registration with IANA.
fn cipher(name: &str) -> Option<&'static str> {
    Some(match name {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA" => "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA" => "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA" => "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA" => "ECDHE-RSA-AES256-SHA",
        "TLS_RSA_WITH_AES_128_GCM_SHA256" => "AES128-GCM-SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384" => "AES256-GCM-SHA384",
        "TLS_RSA_WITH_AES_128_CBC_SHA" => "AES128-SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA" => "AES256-SHA",
        _ => return None,
    })
}
