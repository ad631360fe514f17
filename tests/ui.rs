//! The compiler errors for wrong arguments.

/// The compiler's own words change with its version. These are those of Rust 1.95. To write them again:
/// `TRYBUILD=overwrite cargo test --test ui -- --include-ignored`.
#[rustversion::attr(
    not(stable(1.95)),
    ignore = "the words are those of another version of the compiler"
)]
#[test]
fn wrong_arguments_fail_to_compile_at_their_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
