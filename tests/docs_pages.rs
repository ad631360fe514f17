//! The tests that the documentation names exist.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

/// Adds the sources of all tests, with those of the library.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Returns the texts between backticks that look like the name of a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let last = quoted.filter_map(|quoted| quoted.split(": ").last());
    last.filter(|name| {
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
        is_name && name.matches('_').count() >= 3 && !name.starts_with("shotclock_")
    })
}

#[test]
fn faults_page_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("tests"), &mut all);
    sources(&root.join("src"), &mut all);
    let page = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let names: Vec<_> = named(&page).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(all.contains(&format!("fn {name}(")), "{name} is no test");
    }
}
