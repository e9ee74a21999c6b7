//! How a gateway dials: Consul's keys in its settings.

use serde_json::Value;

use crate::{
    mesh::cluster,
    model::{note::Note, registration::Registration},
    xds::resource::cluster::{Keepalive, Resolution},
};

const DNS: &str = "envoy_dns_discovery_type";
const CONNECT_TIMEOUT: &str = "connect_timeout_ms";
const KEEPALIVE: &str = "envoy_gateway_remote_tcp_enable_keepalive";
const KEEPALIVE_TIME: &str = "envoy_gateway_remote_tcp_keepalive_time";
const KEEPALIVE_INTERVAL: &str = "envoy_gateway_remote_tcp_keepalive_interval";
const KEEPALIVE_PROBES: &str = "envoy_gateway_remote_tcp_keepalive_probes";
/// All that are numbers.
const NUMBERS: [&str; 4] = [CONNECT_TIMEOUT, KEEPALIVE_TIME, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES];

/// What holds for all clusters of a gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewaySettings {
    /// How host names are resolved.
    pub(super) resolution: Resolution,
    /// How long a connection may take where no service-resolver says otherwise.
    pub(super) connect_timeout_ms: u64,
    /// Probes on connections to other datacenters, which firewalls on the way may forget.
    pub(super) keepalive: Option<Keepalive>,
}

impl GatewaySettings {
    /// Reads them; what cannot be honoured becomes a note.
    pub(super) fn read(registration: &Registration, notes: &mut Vec<Note>) -> Self {
        let (about, settings) = (format!("gateway {}", registration.id), &registration.settings);
        for (key, kind) in settings.misfits(&[DNS], &NUMBERS) {
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
        let number = |key: &str| settings.number(key).filter(|number| *number > 0);
        let small = |key: &str| number(key).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let keepalive = is_on(settings.0.get(KEEPALIVE)).then(|| Keepalive {
            time_s: small(KEEPALIVE_TIME),
            interval_s: small(KEEPALIVE_INTERVAL),
            probes: small(KEEPALIVE_PROBES),
        });
        let connect_timeout_ms =
            cluster::time_ms(settings.number(CONNECT_TIMEOUT)).unwrap_or(cluster::CONNECT_TIMEOUT_MS);
        Self { resolution, connect_timeout_ms, keepalive }
    }
}

/// Whether a setting is switched on. Consul takes a text for the value that it spells.
pub(super) fn is_on(setting: Option<&Value>) -> bool {
    match setting {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => text == "true" || text == "1",
        _ => false,
    }
}
