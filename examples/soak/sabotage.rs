//! The faults that the soak can plant. Each makes a claim fail.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// The test misses one poll in a thousand
    Polls,
    /// A client believes that there was one poll more
    Known,
    /// Each answer is counted twice
    Answers,
    /// Polls panic without a request
    Panics,
    /// Closures are offloaded without a request
    Offloads,
    /// Stalls are announced that do not come
    Lost,
    /// Stalls are reported twice
    Twice,
    /// Healthy polls are slow
    Blame,
    /// A worker is blocked unannounced
    Worker,
    /// A worker is announced to be blocked that is not
    Free,
    /// Declarations are shorter than the stalls
    Declared,
    /// A second reporter cannot keep up
    Dropped,
    /// Requests leave memory behind
    Memory,
    /// Or files
    Files,
    /// Or threads
    Threads,
    /// Labels are new all the time
    Series,
    /// A counter goes back
    Back,
    /// System calls are interrupted
    Interrupted,
    /// A poll stays in flight for ever
    Flight,
    /// The service aborts instead of ending
    Abort,
}

impl Sabotage {
    /// Returns the names of the claims that fail then.
    pub(crate) fn breaks(self) -> &'static [&'static str] {
        match self {
            Self::Polls => &["polls"],
            Self::Known => &["known polls"],
            Self::Answers => &["answers"],
            Self::Panics => &["panics"],
            Self::Offloads => &["jobs"],
            Self::Lost | Self::Twice => &["stalls"],
            Self::Blame | Self::Worker => &["attribution"],
            Self::Free => &["workers"],
            Self::Declared => &["attribution", "exceptions"],
            Self::Dropped => &["reports"],
            Self::Memory => &["allocated", "memory"],
            Self::Files => &["files"],
            Self::Threads => &["threads"],
            Self::Series => &["series"],
            Self::Back => &["counters"],
            Self::Interrupted => &["calls"],
            Self::Flight | Self::Abort => &["end"],
        }
    }

    /// Describes the fault, in the words of the help.
    pub(crate) fn what(self) -> String {
        let value = self.to_possible_value();
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_else(|| self.name())
    }

    /// Returns the name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
