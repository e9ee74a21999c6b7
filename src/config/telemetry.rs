//! `[telemetry]`: traces to a collector, off unless an endpoint is given.

use crate::config::{
    key::{Effect, Key, Kind, Section, Value},
    reader::{Document, Refusal},
};

/// Traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// The collector's OTLP/gRPC endpoint, `http://host:port`; none sends nothing.
    pub otlp_endpoint: Option<String>,
    /// `service.name` of the traces.
    pub service_name: String,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { otlp_endpoint: None, service_name: "causeway".into() }
    }
}

pub(crate) const SECTION: Section =
    Section { name: "telemetry", about: "Traces to a collector", keys: &[OTLP_ENDPOINT, SERVICE_NAME] };

const OTLP_ENDPOINT: Key = Key {
    name: "otlp_endpoint",
    kind: Kind::Text("`http://host:port`"),
    example: r#""http://127.0.0.1:4317""#,
    meaning: "where traces are sent, as OTLP over gRPC; without it nothing is sent",
    more: "TLS is not built: use a collector on this machine",
    effect: Effect::Reload(|running, new| {
        running.telemetry.otlp_endpoint = new.telemetry.otlp_endpoint.clone();
    }),
    value: |config| Value::optional(config.telemetry.otlp_endpoint.as_ref()),
    ..Key::TEXT
};
const SERVICE_NAME: Key = Key {
    name: "service_name",
    example: r#""causeway""#,
    meaning: "`service.name` of the traces",
    effect: Effect::Reload(|running, new| {
        running.telemetry.service_name = new.telemetry.service_name.clone()
    }),
    value: |config| Value::text(&config.telemetry.service_name),
    ..Key::TEXT
};

pub(crate) fn read(document: &mut Document<'_>) -> TelemetrySettings {
    let default = TelemetrySettings::default();
    let mut section = document.section("telemetry");
    let otlp_endpoint = section.parsed(&OTLP_ENDPOINT, endpoint).flatten();
    let service_name = section.parsed(&SERVICE_NAME, |text| {
        if text.trim().is_empty() { Err("is empty".to_owned().into()) } else { Ok(text.to_owned()) }
    });
    TelemetrySettings { otlp_endpoint, service_name: service_name.unwrap_or(default.service_name) }
}

fn endpoint(text: &str) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: http::Uri = text.parse().map_err(|_| format!("is `{text}`, and must be a URL"))?;
    match uri.scheme_str() {
        Some("http") if uri.port().is_some() => Ok(Some(text.to_owned())),
        Some("https") => Err(Refusal {
            problem: "is https, and traces are sent without TLS only".into(),
            remedy: Some("send them to a collector on this machine, such as http://127.0.0.1:4317".into()),
        }),
        _ => Err(format!("is `{text}`, and must be http://, a host and a port").into()),
    }
}
