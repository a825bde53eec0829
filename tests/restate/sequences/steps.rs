//! The steps of a sequence, which change its parts, and its end.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::coordinator::{Coordinator, Ended, Ways};
use super::trace::{Note, Trace};
use super::{LAST, Parts, is_bad};
use crate::random::Random;
use crate::work::{Item, output};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A coordinator starts: a new one, one that comes back, or a second one.
    Comes,
    /// The gate of an item is opened, so that an attempt ends.
    Opens,
    /// A coordinator gives up an attempt.
    GivesUp,
    /// An invocation is killed or cancelled by hand.
    Killed,
    /// A coordinator dies.
    Dies,
    /// A run is stopped, and settled in the background.
    Stops,
    /// The stopped runs are waited for.
    Settles,
    /// The worker dies, or is restarted.
    Worker,
    /// The server dies, or is restarted.
    Server,
    /// The deployment is removed, or is restored.
    Deployment,
}

impl Step {
    /// A step that is listed more often is taken more often.
    const CHOICE: [Self; 22] = [
        Self::Comes,
        Self::Comes,
        Self::Comes,
        Self::Opens,
        Self::Opens,
        Self::Opens,
        Self::GivesUp,
        Self::GivesUp,
        Self::GivesUp,
        Self::Killed,
        Self::Killed,
        Self::Dies,
        Self::Dies,
        Self::Stops,
        Self::Stops,
        Self::Settles,
        Self::Settles,
        Self::Settles,
        Self::Worker,
        Self::Worker,
        Self::Server,
        Self::Deployment,
    ];
}

/// A sequence in progress.
pub(super) struct Sequence<'a> {
    run_id: String,
    parts: &'a mut Parts,
    items: &'a [Item],
    trace: Arc<Trace>,
    going: Vec<Coordinator>,
    stopped: Vec<Coordinator>,
    server_is_dead: bool,
    worker_is_dead: bool,
    is_unregistered: bool,
    /// The number of coordinators so far.
    pub(super) coordinators: usize,
    /// The number of times that each step was taken.
    pub(super) taken: BTreeMap<String, usize>,
}

impl<'a> Sequence<'a> {
    pub(super) fn new(seed: u64, parts: &'a mut Parts, items: &'a [Item], trace: Arc<Trace>) -> Self {
        Self {
            run_id: format!("sequence-{seed}"),
            parts,
            items,
            trace,
            going: Vec::new(),
            stopped: Vec::new(),
            server_is_dead: false,
            worker_is_dead: false,
            is_unregistered: false,
            coordinators: 0,
            taken: BTreeMap::new(),
        }
    }

    /// Takes this many steps, and then ends.
    pub(super) async fn take(&mut self, steps: u64, random: &mut Random) -> Result<(), String> {
        self.comes(random);
        for _ in 0..steps {
            sleep(Duration::from_millis(random.below(200))).await;
            let step = Step::CHOICE[random.below(Step::CHOICE.len() as u64) as usize];
            if self.step(step, random).await? {
                *self.taken.entry(format!("{step:?}")).or_default() += 1;
            }
        }
        self.end(random).await
    }

    /// Takes a step. Returns `false` if the step was not possible.
    async fn step(&mut self, step: Step, random: &mut Random) -> Result<bool, String> {
        match step {
            Step::Comes if self.going.len() < 2 => self.comes(random),
            Step::Opens => self.open(random.below(self.items.len() as u64) as usize),
            Step::GivesUp if !self.going.is_empty() => {
                let coordinator = random.below(self.going.len() as u64) as usize;
                let item = random.below(self.items.len() as u64) as usize;
                self.note(format!("coordinator {} gives up item {item}", self.going[coordinator].number));
                self.going[coordinator].give_up(item);
            }
            Step::Killed if !self.server_is_dead => return Ok(self.kill_by_hand(random).await),
            Step::Dies if !self.going.is_empty() => {
                // A stopped coordinator may die, too, before it is settled.
                let of = if self.stopped.is_empty() || random.below(2) == 0 {
                    &mut self.going
                } else {
                    &mut self.stopped
                };
                let coordinator = of.swap_remove(random.below(of.len() as u64) as usize);
                self.note(format!("coordinator {} dies", coordinator.number));
                coordinator.die(&self.trace).await;
            }
            Step::Stops if !self.going.is_empty() => {
                let coordinator = self.going.swap_remove(random.below(self.going.len() as u64) as usize);
                self.note(format!("coordinator {} is stopped", coordinator.number));
                coordinator.stop(random.below(2) == 0);
                self.stopped.push(coordinator);
            }
            Step::Settles if !self.stopped.is_empty() && !self.server_is_dead => self.settle().await?,
            Step::Worker if self.worker_is_dead => self.mend_worker().await,
            Step::Worker => {
                self.note("the worker dies".to_owned());
                self.parts.worker.kill();
                self.worker_is_dead = true;
            }
            Step::Server if self.server_is_dead => self.mend_server().await,
            Step::Server => {
                self.note("the server dies".to_owned());
                self.parts.server.kill();
                self.server_is_dead = true;
            }
            Step::Deployment if self.server_is_dead => return Ok(false),
            Step::Deployment if self.is_unregistered => self.mend_deployment().await,
            Step::Deployment => self.unregister().await,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Repairs all parts, and lets the items end. A settled run leaves nothing, and a last coordinator has each success.
    async fn end(&mut self, random: &mut Random) -> Result<(), String> {
        self.mend().await;
        for coordinator in std::mem::take(&mut self.going) {
            coordinator.stop(random.below(2) == 0);
            self.stopped.push(coordinator);
        }
        self.settle().await?;
        (0..self.items.len()).for_each(|item| self.open(item));
        self.note("the last coordinator comes".to_owned());
        let last = self.start(&LAST);
        let ended = self.account(last.end().await?)?;
        let Some(Ok(result)) = ended else { return Err(format!("the last run ended early: {ended:?}")) };
        for (index, item) in self.items.iter().enumerate() {
            match &result.results[index] {
                Some(found) if *found == output(index as u64) && !is_bad(item) => {}
                None if is_bad(item) => {}
                found => return Err(format!("item {index}: {found:?}, {:?}", result.errors.get(&index))),
            }
        }
        self.nothing_is_left().await
    }

    fn note(&self, step: String) {
        self.trace.note(Note::Step(step));
    }

    fn comes(&mut self, random: &mut Random) {
        let ways = Ways {
            concurrency: 1 + random.below(self.items.len() as u64) as usize,
            retries: 4,
            timeout: (random.below(3) == 0).then(|| Duration::from_millis(400 + random.below(800))),
            grace: Duration::from_millis([0, 0, 300][random.below(3) as usize]),
            kill_after: Duration::from_millis([100, 1_000][random.below(2) as usize]),
        };
        self.note(format!("coordinator {} comes: {ways:?}", self.coordinators));
        let coordinator = self.start(&ways);
        self.going.push(coordinator);
    }

    fn start(&mut self, ways: &Ways) -> Coordinator {
        let number = self.coordinators;
        self.coordinators += 1;
        Coordinator::start(number, ways, &self.parts.server, &self.run_id, self.items, &self.trace)
    }

    fn open(&self, item: usize) {
        if let Some(gate) = &self.items[item].gate {
            self.note(format!("the gate of item {item} is open"));
            fs::write(gate, "").unwrap();
        }
    }

    /// Waits for the end of the stopped runs. If no other run continues, no item of them does.
    async fn settle(&mut self) -> Result<(), String> {
        for coordinator in std::mem::take(&mut self.stopped) {
            let ended = coordinator.end().await?;
            self.account(ended)?;
        }
        if self.going.is_empty() { self.nothing_is_left().await } else { Ok(()) }
    }

    /// Checks that each item is accounted for.
    fn account(&self, ended: Ended) -> Result<Ended, String> {
        let summary = match &ended {
            None => return Ok(ended),
            Some(Ok(result)) => &result.summary,
            Some(Err(error)) => error.summary(),
        };
        let sum = summary.successes + summary.failures + summary.cancelled + summary.not_started;
        if (summary.total, sum) == (self.items.len(), self.items.len()) {
            Ok(ended)
        } else {
            Err(format!("not all items are accounted for: {ended:?}"))
        }
    }

    /// Checks that the engine has no invocation of an item, except for a dead coordinator.
    async fn nothing_is_left(&self) -> Result<(), String> {
        let history = self.trace.history();
        let left = self.parts.server.in_flight(&self.run_id).await;
        let wrong: Vec<_> =
            left.iter().filter(|invocation| !history.may_go_on(item_of(invocation))).collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("the engine has these after `settled`: {wrong:?}"))
        }
    }

    async fn kill_by_hand(&self, random: &mut Random) -> bool {
        let invocations = self.parts.server.in_flight(&self.run_id).await;
        if invocations.is_empty() {
            return false;
        }
        let invocation = &invocations[random.below(invocations.len() as u64) as usize];
        let what = ["kill", "cancel"][random.below(2) as usize];
        self.note(format!("a {what} by hand: {invocation}"));
        let id = invocation["id"].as_str().unwrap();
        let url = format!("{}/invocations/{id}/{what}", self.parts.server.admin());
        // It may have ended in the meantime.
        reqwest::Client::new().patch(url).send().await.unwrap();
        true
    }

    async fn unregister(&mut self) {
        self.note("the deployment goes".to_owned());
        for deployment in self.parts.server.query("SELECT id FROM sys_deployment").await {
            let id = deployment["id"].as_str().unwrap();
            let url = format!("{}/deployments/{id}?force=true", self.parts.server.admin());
            assert!(reqwest::Client::new().delete(url).send().await.unwrap().status().is_success());
        }
        self.is_unregistered = true;
    }

    /// Repairs the broken parts, for this sequence and the next one.
    pub(super) async fn mend(&mut self) {
        if self.server_is_dead {
            self.mend_server().await;
        }
        if self.worker_is_dead {
            self.mend_worker().await;
        }
        if self.is_unregistered {
            self.mend_deployment().await;
        }
    }

    async fn mend_worker(&mut self) {
        self.parts.worker.revive().await;
        self.worker_is_dead = false;
        self.note("the worker is back".to_owned());
    }

    async fn mend_server(&mut self) {
        self.parts.server.revive().await;
        self.server_is_dead = false;
        self.note("the server is back".to_owned());
    }

    async fn mend_deployment(&mut self) {
        // The engine asks the worker for its handlers.
        if self.worker_is_dead {
            self.mend_worker().await;
        }
        self.parts.server.register(self.parts.worker.port()).await;
        self.is_unregistered = false;
        self.note("the deployment is back".to_owned());
    }
}

/// Returns the item of an invocation, from its key.
fn item_of(invocation: &Value) -> usize {
    let key = invocation["idempotency_key"].as_str().unwrap();
    key.split('.').nth(1).unwrap().parse().unwrap()
}
