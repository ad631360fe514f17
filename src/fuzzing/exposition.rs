//! A strict reader of the text format for Prometheus. The crates that read it split at every comma and know no escapes.

use std::collections::{BTreeMap, BTreeSet};

/// The name and the labels of a sample.
pub(super) type SeriesKey = (String, BTreeMap<String, String>);

/// Reads every sample, with its value as text. Panics where the text breaks a rule: an unknown escape, a label or series
/// that comes twice, or a line of no known kind.
pub(super) fn read(text: &str) -> BTreeMap<SeriesKey, String> {
    let mut samples = BTreeMap::new();
    let mut heads = BTreeSet::new();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    for line in text.split_terminator('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let head = (words.next(), words.next());
            assert!(matches!(head.0, Some("HELP" | "TYPE")), "{line:?}");
            assert!(
                words.next().is_some_and(|rest| !rest.is_empty()),
                "{line:?}"
            );
            assert!(heads.insert(head), "twice: {line:?}");
        } else if !line.is_empty() {
            let (series, value) = sample(line);
            let number: Result<f64, _> = value.parse();
            assert!(number.is_ok(), "{line:?}");
            assert!(samples.insert(series, value).is_none(), "twice: {line:?}");
        }
    }
    samples
}

fn sample(line: &str) -> (SeriesKey, String) {
    let end = line
        .find(|c: char| !is_of_name(c) && c != ':')
        .expect("a sample has a value");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line:?}");
    let mut labels = BTreeMap::new();
    if let Some(within) = rest.strip_prefix('{') {
        rest = within;
        while !rest.starts_with('}') {
            let (key, value, after) = label(rest);
            assert!(
                labels.insert(key, value).is_none(),
                "a label twice: {line:?}"
            );
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("a blank before the value");
    ((name.to_owned(), labels), value.to_owned())
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| is_of_name(c) || c == ':')
        && name.starts_with(|c: char| !c.is_ascii_digit())
}

fn label(text: &str) -> (String, String, &str) {
    let (key, rest) = text.split_once("=\"").expect("a label has a value");
    assert!(is_name(key) && !key.contains(':'), "{key:?}");
    let mut escaped = false;
    let is_end = |c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    let end = rest.find(is_end).expect("a label's value ends");
    (key.to_owned(), unescaped(&rest[..end]), &rest[end + 1..])
}

/// Replaces the escapes in the value of a label.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut value = String::new();
    while let Some(c) = chars.next() {
        value.push(match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => panic!("no such escape: {other:?} in {text:?}"),
            },
            (c, _) => c,
        });
    }
    value
}
