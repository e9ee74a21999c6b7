//! The keeper on a real directory, with a paused clock.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::{
    lifecycle::{StopSource, Task},
    model::{
        catalog::{Answer, Heard, Topic},
        mesh::MeshDefaults,
        registration::Defaults,
    },
    state::store::Loaded,
};

struct Bench {
    folder: TempDir,
    catalog: watch::Sender<Arc<Catalog>>,
    _shelf: watch::Sender<Arc<Topics>>,
    memory: TokenMemory,
    metrics: StateMetrics,
    stop: StopSource,
    task: Task<()>,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, catalog_in) = watch::channel(Arc::default());
    let (_shelf, shelf) = watch::channel(Arc::default());
    let memory = TokenMemory::new(None, Duration::from_secs(86_400));
    let metrics = StateMetrics::default();
    let keeper = Keeper::new(Store::new(&dir(&folder)), true, metrics.clone());
    let (stop, stopped) = Stop::pair();
    let sources = Sources { catalog: catalog_in, shelf, tokens: memory.clone() };
    let task = lifecycle::spawn("state.keep", keeper.run(sources, stopped));
    Bench { folder, catalog, _shelf, memory, metrics, stop, task }
}

fn dir(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("state")
}

fn load(dir: &Path) -> Loaded {
    Store::new(dir).load(true, epoch_s(lifecycle::wall_clock()))
}

fn mesh() -> (Topic, Heard) {
    (Topic::Mesh, Heard::fresh(Answer::Mesh(MeshDefaults::default())))
}

impl Bench {
    fn hear(&self, (topic, heard): (Topic, Heard)) {
        self.catalog.send_if_modified(|catalog| Arc::make_mut(catalog).hear(topic, heard));
    }

    async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn topics(&self) -> Vec<String> {
        load(&dir(&self.folder)).topics.keys().map(ToString::to_string).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_soon_and_the_last_one_at_the_end() {
    let mut bench = bench();
    bench.wait(1).await;
    assert_eq!(bench.topics(), Vec::<String>::new());
    bench.hear(mesh());
    let mark = bench.memory.mark(&"good".into());
    bench.memory.pass(&mark, &"web".into());
    bench.wait(6).await;
    assert_eq!(bench.topics(), ["mesh"]);
    let kept = TokenMemory::new(load(&dir(&bench.folder)).tokens, Duration::from_secs(60));
    assert!(kept.vouches(&kept.mark(&"good".into()), &"web".into()));

    bench.hear((Topic::ProxyDefaults, Heard::fresh(Answer::Defaults(Defaults::default()))));
    bench.stop.stop();
    bench.task.join().await.unwrap();
    assert_eq!(bench.topics(), ["proxy-defaults", "mesh"], "without waiting for its time");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_had_is_tried_again() {
    let bench = bench();
    std::fs::write(dir(&bench.folder), "in the way").unwrap();
    bench.hear(mesh());
    bench.wait(30).await;
    assert_eq!(bench.metrics.failing.get(), 1);
    std::fs::remove_file(dir(&bench.folder)).unwrap();
    bench.wait(30).await;
    assert_eq!(bench.metrics.failing.get(), 0);
    assert_eq!(bench.topics(), ["mesh"]);
}
