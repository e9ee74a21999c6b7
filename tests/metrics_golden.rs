//! `docs/metrics.md` lists every metric that the agent registers.

use std::path::Path;

use causeway::{app, sync::metrics::Figures};

const HEAD: &str = "\
# Metrics

`GET /metrics` on the agent's HTTP interface gives them as OpenMetrics text. A counter starts at zero with all its labels, so that a rate
sees the first increment. No label names a proxy or a service: `causeway proxy status` tells those apart. `prefix` is a replicated prefix's id, as
`causeway sync status` shows it.

`make fix` writes this page from the program; do not edit it.

| name | type | labels | meaning |
|---|---|---|---|
";

#[test]
fn the_page_of_metrics_is_golden() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let metrics = app::metrics::register();
    metrics.sync.observe(&Figures::examples());
    metrics.sync.calls.start_at_zero([&"dc1".into()].into_iter());
    let page = format!("{HEAD}{}\n", metrics.registry.describe());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/metrics.md is behind the program; `make fix` writes it:\n{page}");
}
