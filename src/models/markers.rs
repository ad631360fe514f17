//! The comments that give names to operations.

use std::fs;
use std::path::{Path, PathBuf};

const MARK: &str = "// model: ";

/// A marker's name, its file as `Location::file` has it, and its line.
type Marker = (String, String, u32);

/// The file and the line of the operation with this name.
pub(super) fn find(name: &str) -> (String, u32) {
    let named = |marker: &Marker| marker.0 == name;
    let found: Vec<_> = all().into_iter().filter(named).collect();
    let [(_, file, line)] = &found[..] else {
        panic!("`{MARK}{name}` must stand once in src: {found:?}");
    };
    (file.clone(), *line)
}

fn all() -> Vec<Marker> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let markers_of = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let file = file.strip_prefix(root).unwrap().display().to_string();
        let markers = (1..).zip(text.lines()).filter_map(|(line, code)| {
            let (_, name) = code.split_once(MARK)?;
            Some((name.to_owned(), file.clone(), line))
        });
        markers.collect::<Vec<_>>()
    };
    let files = files_in(&root.join("src"));
    files.into_iter().flat_map(markers_of).collect()
}

/// The files of production code.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| !path.ends_with("src/models"));
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_in(&path),
            false => vec![path],
        })
        .collect()
}

#[test]
#[should_panic(expected = "must stand once")]
fn marker_that_is_missing_is_an_error() {
    find("missing");
}

#[test]
fn markers_of_the_source_are_each_used_by_a_model() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models");
    let models = fs::read_dir(models).unwrap();
    let models = models.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let models = models.collect::<String>();
    for (name, file, line) in all() {
        let is_used = models.contains(&format!("\"{name}\""));
        assert!(is_used, "no model uses {name} at {file}:{line}");
    }
}
