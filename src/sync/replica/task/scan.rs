//! A local list that comes in pages, so that no list is in memory as a whole.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    model::kv::Pair,
    sync::{
        replica::{
            snapshot::Merge,
            task::{End, LIST},
        },
        store::{Read, Store},
    },
};

/// Pages that wait: the reader is to be ahead, and a page is large.
const PAGES: usize = 2;

/// A list under way.
pub(super) struct Scan {
    prefix: String,
    pages: mpsc::Receiver<Vec<Pair>>,
    /// Gives how many keys there were.
    count: Option<BoxFuture<'static, Result<u64, End>>>,
    told: Option<u64>,
    got: u64,
}

impl Scan {
    /// Asks for the list.
    pub(super) fn begin<S: Store>(store: &S, prefix: &str, read: Read) -> Self {
        let (sender, pages) = mpsc::channel(PAGES);
        let (store, text) = (store.clone(), prefix.to_owned());
        let count = Box::pin(async move {
            let scanned = store.scan(&text, read, sender).await;
            scanned.map(|answer| answer.value).map_err(|error| End::Failed(format!("list {text}: {error}")))
        });
        Self { prefix: prefix.to_owned(), pages, count: Some(count), told: None, got: 0 }
    }

    /// The next page; none behind the last, and then the list is whole. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Pair>>, End> {
        self.next_within(LIST).await
    }

    async fn next_within(&mut self, patience: Duration) -> Result<Option<Vec<Pair>>, End> {
        let failed = |prefix: &str, why: String| End::Failed(format!("list {prefix}: {why}"));
        let page = timeout(patience, self.page()).await;
        match page.map_err(|_| failed(&self.prefix, format!("nothing for {patience:?}")))?? {
            Some(page) => {
                self.got += page.len() as u64;
                Ok(Some(page))
            }
            None if self.told == Some(self.got) => Ok(None),
            None => Err(failed(&self.prefix, format!("{} of {:?} keys came", self.got, self.told))),
        }
    }

    async fn page(&mut self) -> Result<Option<Vec<Pair>>, End> {
        loop {
            let Some(count) = &mut self.count else { return Ok(self.pages.recv().await) };
            tokio::select! {
                biased;
                Some(page) = self.pages.recv() => return Ok(Some(page)),
                told = count => {
                    self.count = None;
                    self.told = Some(told?);
                }
            }
        }
    }

    /// Feeds the merge until it can judge this key of the home's list.
    pub(super) async fn feed(&mut self, merge: &mut Merge, key: &str) -> Result<(), End> {
        while merge.needs(key) {
            match self.next().await? {
                Some(page) => merge.feed(page),
                None => merge.end_local(),
            }
        }
        Ok(())
    }

    /// Feeds the merge with all that is left, when the home's list has ended.
    pub(super) async fn finish(&mut self, merge: &mut Merge) -> Result<(), End> {
        merge.drain();
        while let Some(page) = self.next().await? {
            merge.feed(page);
            merge.drain();
        }
        merge.end_local();
        Ok(())
    }
}
