//! What the compiler says to the five misuses that people meet first.

/// How many files there are in `tests/ui`, so that a file that is not found is missed.
const MISUSES: usize = 5;

#[test]
fn misuses_are_explained() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ui");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let misuses =
        files.flatten().filter(|file| file.path().extension().is_some_and(|end| end == "rs")).count();
    assert_eq!(misuses, MISUSES, "misuses in tests/ui");
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
