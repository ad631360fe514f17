//! Measurements of what happens once in a process, or stays for as long as it lives: each in a fresh one.

use std::process::Command;

/// Calls this program with `subject` as its only argument, and gives the numbers that it prints.
///
/// # Panics
///
/// If it cannot be called, or fails.
pub fn in_a_fresh_process(subject: &str) -> Vec<f64> {
    let me = std::env::current_exe().expect("this program is a file");
    let output = Command::new(me).arg(subject).output();
    let output = output.expect("this program can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{subject}: {errors}");
    let answer = String::from_utf8_lossy(&output.stdout);
    let figures = answer.lines().map(|line| line.parse());
    figures.map(|figure| figure.expect("a number")).collect()
}

/// The subject that this process was called with. Cargo's own arguments begin with a dash.
pub fn subject() -> Option<String> {
    std::env::args().nth(1).filter(|arg| !arg.starts_with('-'))
}
