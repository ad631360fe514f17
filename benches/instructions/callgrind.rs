//! One subject under valgrind's callgrind.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use crate::locks::Locks;

/// What one run executed inside of `counted`, on the thread that called it.
pub(crate) struct Counted {
    pub(crate) instructions: u64,
    pub(crate) locks: u64,
}

impl Counted {
    pub(crate) fn of(subject: &str, turns: u64) -> Self {
        let out =
            std::env::temp_dir().join(format!("shotclock-instructions-{}", std::process::id()));
        let me = std::env::current_exe().expect("this program is a file");
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=callgrind", "--toggle-collect=*subjects::counted*"])
            .args([
                "--dump-instr=yes",
                "--compress-strings=no",
                "--compress-pos=no",
                // Or the thread that is counted hardly ever lets the sentinel run.
                "--fair-sched=try",
            ])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(me)
            .args([subject, &turns.to_string()]);
        let run = valgrind.output().expect("valgrind is installed");
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{errors}");
        let dump = fs::read_to_string(&out).expect("valgrind has written what it counted");
        // What cannot be removed is of no harm there.
        let _ = fs::remove_file(&out);
        let executed = executed(&dump);
        let maps = String::from_utf8_lossy(&run.stdout);
        let locks = Locks::of(&maps);
        let locks_of = |(object, addresses): (&&str, &Vec<_>)| locks.among(object, addresses);
        Self {
            instructions: executed.values().flatten().map(|(_, count)| count).sum(),
            locks: executed.iter().map(locks_of).sum(),
        }
    }
}

/// How often the instruction at each address was executed, by object file.
fn executed(dump: &str) -> HashMap<&str, Vec<(u64, u64)>> {
    let mut executed: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    let (mut object, mut is_sum_of_a_call) = ("", false);
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = name;
        } else if line.starts_with("calls=") {
            is_sum_of_a_call = true;
        } else if let Some(cost) = line.strip_prefix("0x") {
            // The address, the line in the source, and the count.
            let mut columns = cost.split(' ');
            let address = columns
                .next()
                .and_then(|text| u64::from_str_radix(text, 16).ok());
            let count = columns.nth(1).and_then(|text| text.parse().ok());
            if let (Some(address), Some(count), false) = (address, count, is_sum_of_a_call) {
                executed.entry(object).or_default().push((address, count));
            }
            is_sum_of_a_call = false;
        }
    }
    executed
}
