//! Matches each announced stall with its reports. A stall without a report was lost. A report without a
//! stall is false.

mod polls;
mod workers;

use std::collections::{HashMap, HashSet};

use crate::wire::News;
pub(super) use polls::{Polls, Site};
pub(super) use workers::Workers;

#[derive(Debug, Default)]
pub(super) struct Stalls {
    pub(super) polls: Polls,
    pub(super) workers: Workers,
    pub(super) reports: Reports,
    /// Reports without an announced stall.
    pub(super) false_reports: Vec<String>,
}

impl Stalls {
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Stall(stall) => {
                if let Some(watch) = &stall.watch {
                    self.polls.announced(watch, &stall.task);
                }
                self.workers.announced(stall);
            }
            News::Over { thread, at } => self.workers.over(&thread, at),
            News::Slow {
                report,
                ended,
                watch,
                task,
                text,
            } => {
                let before = self.reports.note(report, ended, &text);
                if let (Some(was_told), true) = (before, ended) {
                    let is_known = self.polls.reported(&watch, &task, was_told);
                    self.false_reports.extend((!is_known).then_some(text));
                }
            }
            News::Stuck {
                report,
                ended,
                thread,
                at,
                millis,
                text,
            } => {
                let before = self.reports.note(report, ended, &text);
                if before == Some(false) {
                    let is_known = self
                        .workers
                        .reported(&thread, at.saturating_sub(millis), at);
                    self.false_reports.extend((!is_known).then_some(text));
                }
            }
            News::Serves { .. }
            | News::Count { .. }
            | News::Counted { .. }
            | News::Flushed { .. } => {}
        }
    }

    /// Returns the number of reports.
    pub(super) fn reported(&self) -> u64 {
        self.reports.ended.len() as u64
    }

    /// Ends the round. All reports have arrived.
    pub(super) fn rest(&mut self) {
        self.polls.rest();
        self.workers.rest();
        self.reports.rest();
    }
}

/// Checks the order of reports: any number of running ones, and then one finished one.
#[derive(Debug, Default)]
pub(super) struct Reports {
    open: HashMap<u64, String>,
    ended: HashSet<u64>,
    /// Reports after a finished one, and reports that no finished one followed.
    pub(super) disorder: Vec<String>,
}

impl Reports {
    /// Returns whether an earlier report had the same id. `None` if that incident had ended.
    fn note(&mut self, report: u64, ended: bool, text: &str) -> Option<bool> {
        if self.ended.contains(&report) {
            self.disorder.push(format!("after its end: {text}"));
            return None;
        }
        Some(if ended {
            self.ended.insert(report);
            self.open.remove(&report).is_some()
        } else {
            self.open.insert(report, text.to_owned()).is_some()
        })
    }

    fn rest(&mut self) {
        let endless = self.open.drain().map(|(_, text)| text);
        self.disorder
            .extend(endless.map(|text| format!("without an end: {text}")));
    }
}
