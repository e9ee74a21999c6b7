//! How a gateway dials: Consul's keys in its settings.

use crate::{
    mesh::cluster,
    model::{note::Note, registration::Registration},
    xds::resource::cluster::Resolution,
};

const DNS: &str = "envoy_dns_discovery_type";
const CONNECT_TIMEOUT: &str = "connect_timeout_ms";

/// What holds for all clusters of a gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewaySettings {
    /// How host names are resolved.
    pub(super) resolution: Resolution,
    /// How long a connection may take where no service-resolver says otherwise.
    pub(super) connect_timeout_ms: u64,
}

impl GatewaySettings {
    /// Reads them; what cannot be honoured becomes a note.
    pub(super) fn read(registration: &Registration, notes: &mut Vec<Note>) -> Self {
        let (about, settings) = (format!("gateway {}", registration.id), &registration.settings);
        for (key, kind) in settings.misfits(&[DNS], &[CONNECT_TIMEOUT]) {
            notes.push(Note::new(
                &about,
                format!("its {key} is not {kind} and does not count"),
                format!("make it {kind}"),
            ));
        }
        let named = settings.text(DNS).unwrap_or_default();
        let resolution = match named.to_ascii_uppercase().as_str() {
            "" | "LOGICAL_DNS" => Resolution::Logical,
            "STRICT_DNS" => Resolution::Strict,
            _ => {
                let problem =
                    format!("its {DNS} `{}` is unknown, and LOGICAL_DNS is taken", named.escape_debug());
                notes.push(Note::new(&about, problem, "set it to LOGICAL_DNS or STRICT_DNS"));
                Resolution::Logical
            }
        };
        let connect_timeout_ms = settings.number(CONNECT_TIMEOUT).filter(|ms| *ms > 0);
        Self { resolution, connect_timeout_ms: connect_timeout_ms.unwrap_or(cluster::CONNECT_TIMEOUT_MS) }
    }
}
