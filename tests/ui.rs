//! The errors of eleven usual mistakes. Each names the cure, and each but one is a single error.
//!
//! The errors of a bound are repeated at `.await`, because a run that does not meet the bound is not a future. The repeated
//! errors name the cure, too. A `map` after an `over` that got a stream is a second error, because it has no items. So the
//! cases end after the mistake.
//!
//! Some errors cannot be improved by the crate, because of rules of the compiler:
//!
//! - The lines of a reader (`lines_are_results`): the first error names `over_try`. A second one is about the body of the
//!   closure, in which the line is a `Result`. The compiler checks that body with the type of the item, and a failed bound
//!   does not change that type. If the error of the source is `Clone`, or with `map_once`, there is only that second error.
//! - An observer without a type (`observer_has_no_type`): the signature of a closure is inferred only from a bound on `Fn`.
//!   `Observer` cannot have `Fn` as its supertrait, because callers cannot implement `Fn` for their types. The error for a
//!   wrong signature is built in, and takes no message from a trait. It shows the line of the bound, and its comment names
//!   the cure. If the body does not decide the type, as in `|event| println!("{event:?}")`, only the lifetime is wrong.
//!   Then there are several errors, "implementation of `FnOnce` is not general enough", and none of them shows the bound.
//! - A borrow in a stream (`stream_borrows`): an error about lifetimes takes no message from a trait. It shows the line of
//!   the bound, and its comment names the cure, if a local variable is borrowed. If a closure without `move` borrows it, a
//!   second error suggests `move`. If a parameter of the function is borrowed, the error is "borrowed data escapes outside
//!   of function", and does not show the bound.

/// Compiles all cases of a folder. Their number is given, so that a missing file is detected.
fn check(folder: &str, expected: usize) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let cases = files.filter(|file| file.path().extension().is_some_and(|end| end == "rs")).count();
    assert_eq!(cases, expected, "cases in {folder}");
    trybuild::TestCases::new().compile_fail(format!("{folder}/*.rs"));
}

#[test]
fn mistakes_are_explained() {
    check("tests/ui", 12);
}

/// The mistakes in `#[map_task]`. Each is one error at its token, and a mistake in an argument is no further errors.
#[cfg(feature = "macros")]
#[test]
fn mistakes_in_the_attribute_are_explained() {
    check("tests/ui_macros", 13);
}
