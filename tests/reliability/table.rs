//! `docs/reliability.md`: written from a run, and held to the list of faults by every other.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};

use crate::reliability::flow::Tally;

/// What stands in the file around the table.
const PAGE: &str = include_str!("page.md");
/// Where the table goes.
const PLACE: &str = "{{table}}";
const HEAD: &str = "| fault | what was seen | failed inside | failed over the link | slowest inside, over the link | traffic again |\n|---|---|---|---|---|---|\n";

/// One fault, as it went.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) during: String,
    /// None of a fault that was not judged to the end.
    pub(super) near: Option<Tally>,
    pub(super) far: Option<Tally>,
    /// From the fault's end to the first of the answers that no failure follows; none without a failure.
    pub(super) back_after: Option<Duration>,
}

impl Row {
    pub(super) fn failed(name: &str) -> Self {
        Self { name: name.to_owned(), during: "FAILED".to_owned(), near: None, far: None, back_after: None }
    }

    /// For the test's output.
    pub(super) fn line(&self) -> String {
        let [name, during, near, far, slowest, back] = self.cells();
        format!(
            "{name}: {during}; failed {near} inside, {far} over the link; slowest {slowest}; traffic again: {back}"
        )
    }

    fn cells(&self) -> [String; 6] {
        let failed = |tally: &Option<Tally>| {
            tally.as_ref().map_or_else(|| "?".to_owned(), |it| format!("{} of {}", it.failed, it.asked))
        };
        let slowest =
            |tally: &Option<Tally>| tally.as_ref().map_or(Duration::ZERO, |it| it.slowest).as_millis();
        let back = match self.back_after {
            Some(after) => format!("after {} ms", after.as_millis()),
            None if self.near.is_none() => "?".to_owned(),
            None => "never stopped".to_owned(),
        };
        let slowest = format!("{}, {} ms", slowest(&self.near), slowest(&self.far));
        [self.name.clone(), self.during.clone(), failed(&self.near), failed(&self.far), slowest, back]
    }
}

/// The table as Markdown.
pub(super) fn render(rows: &[Row]) -> String {
    let lines =
        rows.iter().map(|row| format!("| {} |\n", row.cells().map(|it| it.replace('|', "/")).join(" | ")));
    HEAD.to_owned() + &lines.collect::<String>()
}

/// Writes the table if asked to and all went well, and otherwise compares which faults it has.
pub(super) fn keep(rows: &[Row], is_good: bool) -> anyhow::Result<()> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    if std::env::var_os("UPDATE_RELIABILITY").is_some() {
        ensure!(is_good, "{} is not written by a run with failures", file.display());
        return Ok(std::fs::write(&file, PAGE.replace(PLACE, render(rows).trim_end()))?);
    }
    const REMEDY: &str = "`UPDATE_RELIABILITY=1 cargo test --test it reliability::` writes it";
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("read {}; {REMEDY}", file.display()))?;
    let (had, has) = (faults(&text), rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>());
    ensure!(had == has, "{} lists {had:?}, the run had {has:?}; {REMEDY}", file.display());
    Ok(())
}

/// The first column below the table's head.
fn faults(page: &str) -> Vec<&str> {
    let Some((_, table)) = page.split_once(HEAD) else { return Vec::new() };
    table.lines().map_while(|line| line.strip_prefix("| ")?.split(" | ").next()).collect()
}

#[test]
fn a_page_gives_back_its_faults() {
    let rows = [Row::failed("one"), Row::failed("two")];
    assert_eq!(faults(&PAGE.replace(PLACE, render(&rows).trim_end())), ["one", "two"]);
    assert_eq!(faults("nothing"), Vec::<&str>::new());
}
