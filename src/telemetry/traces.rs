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
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

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

/// The way of spans to the provider; goes behind [`is_ours`].
pub(crate) fn layer<S>(provider: &SdkTracerProvider) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer().with_tracer(provider.tracer("causeway"))
}

/// Lets Causeway's own spans pass only: those of the libraries that carry the traces would make more traces.
pub(crate) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("causeway")
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{net::TcpListener, sync::mpsc};
    use tracing_subscriber::{Layer as _, filter::filter_fn, layer::SubscriberExt};

    use super::*;
    use crate::lifecycle::{Task, spawn};

    /// One batch is all that a test sends.
    const BATCHES: usize = 1;

    /// A collector that takes one connection and gives on the path and the body of each request.
    fn collector(listener: TcpListener) -> (Task<()>, mpsc::Receiver<(String, Bytes)>) {
        let (heard, requests) = mpsc::channel(BATCHES);
        let task = spawn("collector", async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = service_fn(move |request: http::Request<Incoming>| {
                let heard = heard.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    heard.send((path, body)).await.expect("the test listens");
                    let mut response = http::Response::new(Full::new(Bytes::from_static(&[0; 5])));
                    let headers = response.headers_mut();
                    headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
                    headers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    Ok::<_, Infallible>(response)
                }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        (task, requests)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn our_spans_reach_the_collector_and_those_of_libraries_stay_here() {
        let listener = TcpListener::bind("127.53.0.2:0").await.expect("bound");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (_task, mut requests) = collector(listener);
        let provider = provider(&endpoint, "agent-under-test").expect("an exporter");
        let subscriber =
            tracing_subscriber::registry().with(layer(&provider).with_filter(filter_fn(is_ours)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("publish_snapshot").in_scope(|| ());
            tracing::info_span!(target: "h2::client", "a_frame_of_a_library").in_scope(|| ());
        });
        let flush = tokio::task::spawn_blocking(move || provider.force_flush());
        let (path, body) = requests.recv().await.expect("a batch");
        flush.await.expect("no panic").expect("taken");
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains("publish_snapshot") && body.contains("agent-under-test"), "{body}");
        assert!(!body.contains("a_frame_of_a_library"), "{body}");
    }
}
