//! Spans to an OTLP collector, in batches from a thread of their own. A collector that is away is told once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// How long the end of the agent waits for the collector to take the last spans.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// How long one batch may take.
const EXPORT_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn provider(endpoint: &str, service: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter =
        OtlpExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_DEADLINE).build()?;
    let reporting = Reporting { exporter, endpoint: endpoint.to_owned(), is_failing: AtomicBool::new(false) };
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(reporting).build())
}

/// Takes Causeway's own spans only: those of the libraries that carry the traces would make more traces.
pub(crate) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("causeway"))
        .with_filter(filter_fn(|metadata| metadata.target().starts_with("causeway")))
}

/// An exporter whose failures are logged when they begin and when they end, and not at every batch.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    endpoint: String,
    is_failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(endpoint = %self.endpoint, %error, "traces cannot be sent and are dropped");
            }
            Ok(()) if was_failing => tracing::info!(endpoint = %self.endpoint, "traces are sent again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
