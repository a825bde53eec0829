//! The suite reports the faults of a store.

use std::collections::BTreeSet;

use async_map_task::store::conformance::{self, Failure};

use super::faulty::{Fault, Faulty};
use super::{CASES, in_memory};

/// Each fault, and a case that must name it.
const FAULTS: [(Fault, &str); 18] = [
    (Fault::CommitsForAnyHolder, "only_the_holder_commits"),
    (Fault::CommitsByHalves, "a_commit_takes_effect_as_a_whole_or_not_at_all"),
    (Fault::KeepsCheckpoints, "a_success_deletes_its_checkpoint_and_no_other"),
    (Fault::IgnoresContentOfCheckpoints, "a_checkpoint_is_one_of_the_content"),
    (Fault::StartsEachPageAnew, "successes_come_in_pages"),
    (Fault::RenewsLostLeases, "a_lost_lease_cannot_be_renewed"),
    (Fault::ClosesForAnyHolder, "closing_does_nothing_if_another_has_the_run"),
    (Fault::KeepsLeasesOfClosedRuns, "closing_ends_the_lease_and_notes_the_end"),
    (Fault::ForgetsNothing, "a_forgotten_run_is_gone_with_all_that_was_kept"),
    (Fault::IgnoresVersions, "a_value_is_found_by_its_whole_key"),
    (Fault::NeverExpires, "a_value_expires"),
    (Fault::GrantsEachClaim, "a_claim_is_granted_to_one"),
    (Fault::ClaimsInTwoSteps, "of_many_claims_one_is_granted"),
    (Fault::KeepsReleasedClaims, "a_claim_that_is_released_is_free_at_once"),
    (Fault::RewritesJson, "a_value_is_found_by_its_whole_key"),
    (Fault::CutsNames, "names_of_the_longest_length_are_kept_apart"),
    (Fault::RefusesLargeOutputs, "a_megabyte_comes_back"),
    (Fault::Panics, "evicting_deletes_a_version_or_all"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_named() {
    for (fault, expected) in FAULTS {
        assert!(failure(expected, fault).await.starts_with(&format!("{expected}: ")), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_names_exactly_the_failed_cases() {
    let broken = conformance::check(|| async { Faulty::new(Fault::KeepsReleasedClaims) }).await.unwrap_err();
    let named: Vec<_> = broken.failures().iter().map(Failure::case).collect();
    assert_eq!(named, ["a_claim_that_is_released_is_free_at_once"], "{broken}");
    let text = broken.to_string();
    assert!(text.starts_with("the store fails 1 of 56 cases\n  a_claim_that_is_released_is_free"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_a_fault_passes() {
    assert_eq!(conformance::check(|| async { Faulty::new(Fault::None) }).await.unwrap(), CASES);
}

/// One case against one fault.
async fn failure(name: &str, fault: Fault) -> String {
    let case = conformance::cases().into_iter().find(|case| case.name() == name).unwrap();
    case.check(Faulty::new(fault)).await.expect_err(name).to_string()
}

#[tokio::test]
async fn a_failure_contains_the_value_and_the_place() {
    let text = failure("a_value_expires", Fault::NeverExpires).await;
    let (message, place) = text.split_once(", at ").unwrap();
    assert_eq!(
        message,
        "a_value_expires: found Some(Checksummed { json: \"1\", checksum: \"0123456789abcdef\" }), expected None"
    );
    assert!(place.contains("conformance") && place.contains("cache.rs:"), "{place}");
    let text = failure("a_megabyte_comes_back", Fault::RefusesLargeOutputs).await;
    assert!(text.contains("a call that must succeed failed: the store is damaged: the output"), "{text}");
    assert!(text.contains("text.rs:"), "the place is that of the call: {text}");
}

#[tokio::test]
async fn a_panic_fails_its_case() {
    let text = failure("evicting_deletes_a_version_or_all", Fault::Panics).await;
    assert_eq!(text, "evicting_deletes_a_version_or_all: the store panicked: no eviction today");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_returns_fails_its_case() {
    let text = failure("evicting_deletes_a_version_or_all", Fault::Hangs).await;
    assert_eq!(text, "evicting_deletes_a_version_or_all: did not end within 120s");
}

#[tokio::test]
async fn names_of_cases_are_unique() {
    let store = in_memory().await;
    let cases = conformance::cases();
    let names: BTreeSet<_> = cases.iter().map(conformance::Case::name).collect();
    assert_eq!((names.len(), cases.len()), (CASES, CASES));
    assert!(cases[0].check(store).await.is_ok());
}
