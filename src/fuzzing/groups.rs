//! The kernel's files about control groups and their mounts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Input;
use crate::cgroup::{parse_throttled, possible_files};

/// Reads files about control groups. The parser names the file of the group and of each group around it, beneath the
/// mount, and no other file.
pub fn groups(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (groups, mounts) = text.split_once("\n\n").unwrap_or((&text, &text));
    let root = Path::new("/r");
    for file in possible_files(root, groups, mounts) {
        assert!(
            file.starts_with(root) && file.ends_with("cpu.stat"),
            "{file:?}"
        );
    }
    throttled(&text);
    mounted(&mut Input::new(data));
}

fn throttled(text: &str) {
    let value = |line: &str| -> Option<u128> {
        let (name, value) = line.split_once(' ')?;
        let factor = match name {
            "throttled_usec" => 1_000,
            "throttled_time" => 1,
            _ => return None,
        };
        Some(value.trim().parse::<u64>().map_or(0, u128::from) * factor)
    };
    let all: Vec<_> = text.lines().filter_map(value).collect();
    match parse_throttled(text) {
        Some(nanos) => assert!(all.contains(&nanos.into()), "{text:?}"),
        None => assert!(
            all.iter()
                .all(|nanos| *nanos == 0 || *nanos > u64::MAX.into())
        ),
    }
}

type Parts = Vec<String>;

/// Takes the parts of a path: neither empty nor of dots.
fn parts(input: &mut Input<'_>) -> Parts {
    let part = |input: &mut Input<'_>| {
        let name = input.name().replace(['/', '\0', '\n'], "_");
        if ["", ".", ".."].contains(&&*name) {
            "x".into()
        } else {
            name
        }
    };
    (0..input.below(4)).map(|_| part(input)).collect()
}

fn text_of(parts: &[String]) -> String {
    format!("/{}", parts.join("/"))
}

/// Escapes a path as `/proc/self/mountinfo` does.
fn escaped(path: &str) -> String {
    let escape = |c: char| match c {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
        other => other.to_string(),
    };
    path.chars().map(escape).collect()
}

/// Mounts the tree of groups below one group somewhere, and puts this process into another group.
fn mounted(input: &mut Input<'_>) {
    let (point, shown, inside) = (parts(input), parts(input), parts(input));
    // Beneath the mounted group, or anywhere.
    let group = if input.flag() {
        [shown.clone(), inside].concat()
    } else {
        inside
    };
    let is_second = input.flag();
    let (kind, options, controllers) = match is_second {
        true => ("cgroup2", "rw", ""),
        false => ("cgroup", "rw,cpu,cpuacct", "cpu,cpuacct"),
    };
    let group_text = format!("7:{controllers}:{}\n", text_of(&group));
    let mut mount = String::new();
    let (root, at) = (escaped(&text_of(&shown)), escaped(&text_of(&point)));
    let _ = writeln!(
        mount,
        "30 23 0:26 {root} {at} rw shared:4 - {kind} none {options}"
    );
    let beneath = group.strip_prefix(&shown[..]).unwrap_or(&group);
    let mut expected: Vec<PathBuf> = Vec::new();
    for depth in (0..=beneath.len()).rev() {
        let parts = point.iter().chain(&beneath[..depth]);
        expected.push(
            Path::new("/r")
                .join(parts.collect::<PathBuf>())
                .join("cpu.stat"),
        );
    }
    let files = possible_files(Path::new("/r"), &group_text, &mount);
    assert_eq!(files, expected, "{group_text}{mount}");
    let other = mount.replace(" - cgroup", " - ext");
    assert_eq!(
        possible_files(Path::new("/r"), &group_text, &other),
        Vec::<PathBuf>::new()
    );
}
