//! All parts of a run, each in its own process.

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use super::account::Account;
use crate::folder::Folder;
use crate::process::{Coordinator, Map, Worker, wait_for};
use crate::server::Server;
use crate::work::Event;

/// The part to kill.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Worker,
    Server,
    Coordinator,
}

/// A server with a worker, and a run.
pub(super) struct Cluster {
    pub(super) server: Server,
    pub(super) workers: Vec<Worker>,
    pub(super) map: Map,
    // Last, so that they are dropped after everything that uses them.
    pub(super) folder: Folder,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Waits until no other cluster runs: two of them would slow each other down.
    pub(super) async fn start(run_id: &str, items: u64) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let (folder, server) = (Folder::new(), Server::start().await);
        let worker = Worker::start(folder.file("worker")).await;
        server.register(worker.port()).await;
        let map = Map::new(&server, run_id, items);
        Self { server, workers: vec![worker], map, folder, _turn: turn }
    }

    pub(super) fn coordinator(&self) -> Coordinator {
        self.coordinator_of(&self.map)
    }

    pub(super) fn coordinator_of(&self, map: &Map) -> Coordinator {
        Coordinator::start(map, self.folder.path())
    }

    /// Kills a part and starts it again immediately. Returns the progress of the run at that time.
    pub(super) async fn kill(&mut self, part: Part, coordinator: &mut Option<Coordinator>) -> Account {
        match part {
            Part::Worker => self.workers[0].kill(),
            Part::Server => self.server.kill(),
            Part::Coordinator => coordinator.take().unwrap().kill(),
        }
        let at = self.account();
        match part {
            Part::Worker => self.workers[0].revive().await,
            Part::Server => self.server.revive().await,
            Part::Coordinator => *coordinator = Some(self.coordinator()),
        }
        at
    }

    pub(super) fn account(&self) -> Account {
        Account::new(self.map.items, self.workers.iter().flat_map(|worker| worker.log().events()))
    }

    /// Waits until half of the items have ended, and all held items have begun.
    pub(super) async fn until_half_way(&self) {
        self.until_ended(self.map.items / 2).await;
        let are_held = || self.account().have_begun(self.map.held.clone());
        wait_for("items that are held", async || are_held().then_some(())).await;
    }

    /// Waits until this many items have ended.
    pub(super) async fn until_ended(&self, items: u64) {
        wait_for("items that end", async || (self.account().ended() >= items).then_some(())).await;
    }

    /// Returns the number of executions that have ended in a worker.
    pub(super) fn ended_by(&self, worker: usize) -> usize {
        self.workers[worker].log().events().iter().filter(|(event, _)| *event == Event::Ended).count()
    }

    /// Waits until this many more executions have ended in a worker.
    pub(super) async fn until_ended_by(&self, worker: usize, more: usize) {
        let enough = self.ended_by(worker) + more;
        wait_for("a worker's work", async || (self.ended_by(worker) >= enough).then_some(())).await;
    }

    /// Checks that the engine has no invocation that has not ended.
    pub(super) async fn check_nothing_is_left(&self) {
        assert_eq!(self.server.in_flight(&self.map.run_id).await, Vec::<Value>::new());
    }
}
