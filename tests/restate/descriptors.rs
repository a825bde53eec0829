//! A program that has fewer file descriptors than calls.

use crate::process::{Coordinator, Map};
use crate::scene::Scene;
use crate::server;

/// Less than half of what a run needs for its calls.
const LIMIT: &str = "ulimit -n 32";

const ITEMS: u64 = 200;

#[tokio::test]
async fn a_program_with_too_few_descriptors_names_them_once_and_loses_nothing() {
    let (server, scene) = (server::shared().await, Scene::new("descriptors"));
    let map = Map { log: scene.log.path(), ..Map::new(server, scene.run_id, ITEMS) };
    let coordinator = Coordinator::start_with(&map, scene.folder(), LIMIT, &[]);
    let (report, warnings) = coordinator.report_and_warnings().await;
    assert_eq!(report, map.undisturbed().await);
    assert_eq!(scene.began(ITEMS), [1; ITEMS as usize]);
    let lines: Vec<_> = warnings.lines().collect();
    assert_eq!(lines.len(), 1, "{warnings}");
    assert!(lines[0].contains("too few file descriptors for the calls"), "{warnings}");
    assert!(lines[0].contains("see `ulimit -n`"), "{warnings}");
}
