//! Checks the names of types: a name has one meaning in the whole crate.

use std::collections::BTreeMap;
use std::path::Path;

/// Files that stand in for another one, on some platforms, without some features, or in models. They repeat its names.
const STAND_INS: [&str; 4] = ["/no_", "/disabled.rs", "/unsupported.rs", "/under_loom/"];

#[test]
fn types_of_one_name_are_one_type() {
    let mut files_of = BTreeMap::new();
    add_types_below(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files_of,
    );
    assert!(files_of.contains_key("Watchdog"), "no type was found");
    files_of.retain(|_, files: &mut Vec<String>| files.len() > 1);
    assert!(files_of.is_empty(), "rename all but one: {files_of:?}");
}

fn add_types_below(directory: &Path, files_of: &mut BTreeMap<String, Vec<String>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_types_below(&path, files_of);
            continue;
        }
        let file = path.to_str().unwrap();
        if STAND_INS.iter().any(|part| file.contains(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for name in text.lines().filter_map(declared_type) {
            let files = files_of.entry(name.to_owned()).or_default();
            files.push(file.to_owned());
        }
    }
}

/// Returns the type or trait that a line declares, if it stands in no block. Types inside functions have no other reader.
fn declared_type(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub").unwrap_or(line);
    let line = match line.strip_prefix('(') {
        Some(path) => path.split_once(')')?.1,
        None => line,
    };
    let line = line.strip_prefix(' ').unwrap_or(line);
    let is_keyword = |word: &&str| ["struct", "enum", "union", "trait", "type"].contains(word);
    let (keyword, rest) = line.split_once(' ')?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(rest.len());
    is_keyword(&keyword).then(|| &rest[..end])
}
