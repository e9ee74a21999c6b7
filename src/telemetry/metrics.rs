//! The registry of metrics: who owns it, how it is written out, and what the process tells of itself. Each area
//! registers its own metrics.

use std::{collections::BTreeSet, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The unit of times in `/proc/*/stat`: Linux tells user space hundredths of a second whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the process's own metrics and `causeway_build_info`.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("causeway_build", "The version of Causeway that runs", version);
        registry.register_collector(Box::new(ProcessMetrics));
        Self { registry }
    }

    /// Where areas register theirs, before the metrics are first asked for.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail; a metric that fails to encode leaves what was written before it.
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::warn!(%error, "metrics not encoded");
        }
        text
    }

    /// One Markdown table row per metric that has a value: name, type, labels, meaning. Sorted by name.
    pub fn describe(&self) -> String {
        let text = self.encode();
        let mut rows: Vec<String> = text.split("# HELP ").skip(1).map(row).collect();
        rows.sort();
        rows.dedup();
        rows.join("\n")
    }
}

/// The row of one metric: `NAME HELP`, then its type and its samples, a line each.
fn row(family: &str) -> String {
    let mut lines = family.lines();
    let (name, help) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or((family, ""));
    let kind = lines.next().and_then(|line| line.rsplit_once(' ')).map_or("", |(_, kind)| kind);
    let suffix = match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let labels: BTreeSet<&str> = lines.flat_map(label_names).collect();
    let labels: Vec<String> = labels.into_iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}{suffix}` | {kind} | {} | {} |", labels.join(", "), help.trim_end_matches('.'))
}

/// The names of a sample's labels; `le` is a histogram's own.
fn label_names(sample: &str) -> Vec<&str> {
    let Some((_, rest)) = sample.split_once('{') else { return Vec::new() };
    let (labels, _) = rest.rsplit_once('}').unwrap_or((rest, ""));
    let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
    names.filter(|name| *name != "le").collect()
}

/// What every Prometheus client tells of its process, by the usual names. Read when asked for.
#[derive(Debug)]
struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time of the process";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        if let Some(seconds) = start_seconds(&stat, &boot) {
            gauge(&mut encoder, "process_start_time_seconds", "Start of the process, Unix time", seconds)?;
        }
        let memory = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident_bytes(&memory) {
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM",
                bytes,
            )?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open.count() as f64)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Field `number` of `/proc/self/stat` as proc(5) counts them. The name of the command, field 2, may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kibibytes * 1024) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_tells_of_itself() {
        let text = Metrics::new().encode();
        for name in [
            "causeway_build_info{version=\"0.1.0\"} 1",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_command_name_with_brackets_and_spaces_is_no_trap() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 4 0 1234 0 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_seconds(stat, "cpu 1\nbtime 1000\n"), Some(1012.34));
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t      12 kB\n"), Some(12288.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn metrics_are_described_by_the_names_they_are_scraped_under() {
        let described = Metrics::new().describe();
        let build = "| `causeway_build_info` | info | `version` | The version of Causeway that runs |\n";
        assert!(described.starts_with(build), "{described}");
        let cpu = "| `process_cpu_seconds_total` | counter |  | User and system CPU time of the process |";
        assert!(described.contains(cpu), "{described}");
    }
}
