//! The example `hyperparameter_search`.

use crate::harness::Sandbox;

#[test]
fn hyperparameter_search_finds_the_best_of_the_candidates_that_can_be_judged() {
    let ended = Sandbox::new().example("hyperparameter_search").run();
    ended.exits(0).out_has("54 candidates, 48 evaluated, 6 not");
    ended.out_has("best: 8 neighbours, 8 days per hour").out_has("its mean error: 1.22 degrees");
}
