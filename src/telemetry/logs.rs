//! The log on standard error, its level at run time, and the way of spans to the collector.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::filter_fn,
    fmt,
    layer::{Layered, SubscriberExt},
    registry::LookupSpan,
    reload::{self, Handle},
    util::{SubscriberInitExt, TryInitError},
};

use crate::{
    config::{
        Env,
        log::{BadFilter, LogFilter, LogFormat, LogSettings},
        telemetry::TelemetrySettings,
    },
    telemetry::traces,
};

/// What is logged at all.
type Filtering = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
/// And how it is written.
type Logging = Layered<Lines<Filtering>, Filtering>;
/// The way of spans to the collector, if there is one.
type Spans = Option<OpenTelemetryLayer<Logging, SdkTracer>>;

/// Logging and tracing of this process. Keep it until the end, then [`Telemetry::shutdown`].
pub struct Telemetry {
    filter: Handle<EnvFilter, Registry>,
    level: ArcSwap<LogFilter>,
    spans: Handle<Spans, Logging>,
    traces: Mutex<Traces>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Where traces go.
#[derive(Debug)]
struct Traces {
    settings: TelemetrySettings,
    provider: Option<SdkTracerProvider>,
}

impl Traces {
    fn new(settings: &TelemetrySettings) -> Result<Self, TelemetryError> {
        let provider = settings.otlp_endpoint.as_ref().map(|endpoint| {
            let refused = |error: opentelemetry_otlp::ExporterBuildError| TelemetryError::Traces {
                endpoint: endpoint.clone(),
                reason: error.to_string(),
            };
            traces::provider(endpoint, &settings.service_name).map_err(refused)
        });
        Ok(Self { settings: settings.clone(), provider: provider.transpose()? })
    }

    fn spans(&self) -> Spans {
        self.provider.as_ref().map(traces::layer)
    }

    /// Sends what is left, waiting for the collector for a short time only.
    async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // The flush blocks its thread until the collector answered or time is up.
        let flushed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(traces::FLUSH_DEADLINE)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => lost(&error),
            Err(error) => lost(&error),
        }
    }
}

/// Telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter; settings that were read carry a checked one.
    #[error("use the log level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of traces was refused its endpoint.
    #[error("send traces to {endpoint}: {reason}; correct [telemetry] otlp_endpoint, or remove it")]
    Traces {
        /// The collector's endpoint.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The log of this process is gone.
    #[error("change where traces are sent: {0}")]
    Gone(#[from] reload::Error),
    /// This process logs already.
    #[error("install the log: {0}")]
    Installed(#[from] TryInitError),
}

/// Starts logging, once per process and inside the runtime; traces go out only when an endpoint is set.
///
/// # Errors
/// See [`TelemetryError`]. A collector that cannot be reached is no error.
pub fn init(
    log: &LogSettings,
    telemetry: &TelemetrySettings,
    env: Env<'_>,
) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(log.level.directives())?);
    let traces = Traces::new(telemetry)?;
    let (sent, spans) = reload::Layer::new(traces.spans());
    let look = Look::new(log.format, io::stderr().is_terminal(), env);
    stack(filter, lines(&look, io::stderr), sent).try_init()?;
    let level = ArcSwap::from_pointee(log.level.clone());
    Ok(Telemetry { filter: handle, level, spans, traces: Mutex::new(traces) })
}

/// What every line and span goes through.
fn stack(
    filter: reload::Layer<EnvFilter, Registry>,
    lines: Lines<Filtering>,
    sent: reload::Layer<Spans, Logging>,
) -> impl SubscriberInitExt + tracing::Subscriber {
    // Spans come last: below another layer their own filter would have every line that is not logged looked at anew
    // each time.
    tracing_subscriber::registry().with(filter).with(lines).with(sent.with_filter(filter_fn(traces::is_ours)))
}

impl Telemetry {
    /// What is logged now, as it was written.
    pub fn level(&self) -> String {
        self.level.load().to_string()
    }

    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// The text is no filter; says what to write. The old one stays.
    pub fn set_level(&self, text: &str) -> Result<(), String> {
        let level: LogFilter = text.parse().map_err(|error: BadFilter| error.to_string())?;
        let filter = EnvFilter::try_new(level.directives()).map_err(|error| error.to_string())?;
        self.filter.reload(filter).map_err(|error| error.to_string())?;
        if **self.level.load() != level {
            tracing::info!(%level, "log level changed");
        }
        self.level.store(level.into());
        Ok(())
    }

    /// Sends traces by other settings from now on; what is left for the old collector is sent there, for a short time.
    ///
    /// # Errors
    /// The new endpoint was refused; the old one stays.
    pub async fn set_traces(&self, settings: &TelemetrySettings) -> Result<(), TelemetryError> {
        if self.traces().settings == *settings {
            return Ok(());
        }
        let new = Traces::new(settings)?;
        self.spans.reload(new.spans())?;
        let old = std::mem::replace(&mut *self.traces(), new);
        old.shutdown().await;
        Ok(())
    }

    fn traces(&self) -> MutexGuard<'_, Traces> {
        // Every change leaves the value whole.
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what traces are left, waiting for the collector for a short time only.
    pub async fn shutdown(&self) {
        let last = {
            let mut traces = self.traces();
            Traces { settings: traces.settings.clone(), provider: traces.provider.take() }
        };
        last.shutdown().await;
    }
}

fn lost(error: &dyn std::error::Error) {
    tracing::warn!(error = %error, "last traces not sent");
}

/// How lines look.
struct Look {
    format: LogFormat,
    has_colours: bool,
    has_time: bool,
}

impl Look {
    fn new(format: LogFormat, is_terminal: bool, env: Env<'_>) -> Self {
        Self {
            format,
            has_colours: is_terminal && env("NO_COLOR").is_none_or(|value| value.is_empty()),
            // The journal has a time of its own for each line.
            has_time: is_terminal || env("JOURNAL_STREAM").is_none(),
        }
    }
}

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn lines<S, W>(look: &Look, writer: W) -> Lines<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(look.has_colours);
    match (look.format, look.has_time) {
        (LogFormat::Json, _) => layer.json().flatten_event(true).with_span_list(false).boxed(),
        (LogFormat::Text, true) => layer.compact().with_target(false).boxed(),
        (LogFormat::Text, false) => layer.compact().with_target(false).without_time().boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write, sync::Arc};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one writer").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, env: &[(&str, &str)]) -> String {
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        let look = Look::new(format, false, &|name| env.get(name).map(|value| (*value).to_owned()));
        let paper = Paper::default();
        let sheet = paper.clone();
        let subscriber = tracing_subscriber::registry().with(lines(&look, move || sheet.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("task", task = "xds.publish").entered();
            tracing::info!(dc = "dc1", services = 3, "catalog published");
        });
        let bytes = paper.0.lock().expect("one writer").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn text_under_systemd_has_no_time() {
        let line = written(LogFormat::Text, &[("JOURNAL_STREAM", "8:1")]);
        assert_eq!(line, " INFO task: catalog published dc=\"dc1\" services=3 task=\"xds.publish\"\n");
        let line = written(LogFormat::Text, &[]);
        assert!(line.starts_with("20") && line.contains("Z  INFO task: catalog published"), "{line}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let line = written(LogFormat::Json, &[]);
        let object: serde_json::Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(object["message"], "catalog published");
        assert_eq!(object["services"], 3);
        assert_eq!(object["span"]["task"], "xds.publish");
    }

    #[test]
    fn what_is_not_logged_is_found_out_once() {
        let settings = LogSettings::default();
        let (filter, _handle) =
            reload::Layer::new(EnvFilter::try_new(settings.level.directives()).expect("a filter"));
        let look = Look::new(settings.format, false, &|_| None);
        let (sent, _spans) = reload::Layer::new(None);
        let subscriber = stack(filter, lines(&look, io::sink), sent);
        assert_eq!(
            tracing::Subscriber::max_level_hint(&subscriber),
            Some(tracing::level_filters::LevelFilter::INFO)
        );
    }

    /// The one test that installs the process's log. The collector's port is closed, which must harm nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_level_changes_at_run_time_and_a_lost_collector_harms_nothing() {
        let telemetry = TelemetrySettings {
            otlp_endpoint: Some("http://127.53.0.9:1".into()),
            ..TelemetrySettings::default()
        };
        let logs = init(&LogSettings::default(), &telemetry, &|_| None).expect("starts");
        assert_eq!(logs.level(), "info");
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        logs.set_level("debug").expect("a level");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert_eq!(logs.level(), "debug");
        let error = logs.set_level("debgu").expect_err("no level");
        assert!(error.starts_with("`debgu` is not a level; write one of"), "{error}");
        assert_eq!(logs.level(), "debug");
        tracing::info_span!("work").in_scope(|| tracing::info!("done"));
        let collector = tokio::net::TcpListener::bind("127.53.0.10:0").await.expect("bound");
        let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
        let other = TelemetrySettings { otlp_endpoint: Some(endpoint), ..telemetry };
        logs.set_traces(&other).await.expect("changed");
        tracing::info_span!("work").in_scope(|| tracing::info!("done"));
        let off = TelemetrySettings::default();
        let (came, changed) = tokio::join!(
            async move { collector.accept().await.map(drop) },
            logs.set_traces(&off), // sends what is left
        );
        came.expect("the spans come here now");
        changed.expect("switched off");
        logs.shutdown().await;
        // The log stays installed for the tests beside and after this one.
        logs.set_level("off").expect("a level");
    }
}
