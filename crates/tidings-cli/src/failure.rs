//! Errors that end the program: one line on standard error, and an exit code.
//!
//! [`EXIT_CODES`] is the list that `tidings --help` and docs/reference/exit-codes.md print.

use std::fmt;

use tidings_net::redacted;

/// What the exit codes mean. `tidings run` ends with the code of its application instead.
pub(crate) const EXIT_CODES: [(u8, &str); 5] = [
    (SUCCESS, "done"),
    (ERROR, "an error that no other code stands for; one line on standard error describes it"),
    (USAGE, "the command line or the configuration is wrong"),
    (REFUSED, "the hub refused the request (4xx): repeated, it would be refused again"),
    (UNAVAILABLE, "no hub answered in time, or it could not (5xx, 408, 425, 429): try again later"),
];

const SUCCESS: u8 = 0;
const ERROR: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;
const UNAVAILABLE: u8 = 4;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that no other variant describes.
    Runtime(String),
    /// The command line or the configuration is wrong.
    Usage(String),
    /// The hub refused the request; the same request would be refused again.
    Refused(String),
    /// No hub answered, or not in time, or it could not; the same request may succeed later.
    Unavailable(String),
    /// The application of `tidings run` has ended, or cannot be started. Its exit code.
    #[cfg(unix)]
    Status { status: u8, message: String },
    /// The reader of the output has closed it, as `head` does. That is not an error.
    OutputClosed,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn runtime(message: impl fmt::Display) -> Self {
        Self::Runtime(message.to_string())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(_) => ERROR,
            Self::Usage(_) => USAGE,
            Self::Refused(_) => REFUSED,
            Self::Unavailable(_) => UNAVAILABLE,
            #[cfg(unix)]
            Self::Status { status, .. } => *status,
            Self::OutputClosed => SUCCESS,
        }
    }

    /// The same failure with another message.
    pub(crate) fn map(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Runtime(message) => Self::Runtime(change(message)),
            Self::Usage(message) => Self::Usage(change(message)),
            Self::Refused(message) => Self::Refused(change(message)),
            Self::Unavailable(message) => Self::Unavailable(change(message)),
            #[cfg(unix)]
            Self::Status { status, message } => Self::Status { status, message: change(message) },
            Self::OutputClosed => Self::OutputClosed,
        }
    }
}

/// One line, whatever text of a file, a variable or a server it contains.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(message)
            | Self::Usage(message)
            | Self::Refused(message)
            | Self::Unavailable(message) => write_line(f, message),
            #[cfg(unix)]
            Self::Status { message, .. } => write_line(f, message),
            Self::OutputClosed => f.write_str("standard output was closed by its reader"),
        }
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, message: &str) -> fmt::Result {
    for character in message.chars() {
        if character.is_control() {
            write!(f, "{}", character.escape_default())?;
        } else {
            write!(f, "{character}")?;
        }
    }
    Ok(())
}

/// Clap explains an error in paragraphs. The first names the error and a tip may follow; the usage
/// is in `--help`.
impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let parts: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
            .filter(|line| !line.is_empty())
            .map(|line| line.trim_start_matches("error: ").trim_start_matches("tip: "))
            .collect();
        let text = parts.join("; ").replace(":; ", ": ");
        // Arguments are quoted, and a misplaced URL may still contain a password.
        let shown: Vec<_> = text
            .split('\'')
            .map(|part| if part.contains("://") { redacted(part) } else { part.into() })
            .collect();
        Self::Usage(format!("{}; see --help", shown.join("'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_it_quotes() {
        assert_eq!(Failure::usage("a\nb\u{1b}[31m").to_string(), "a\\nb\\u{1b}[31m");
    }
}
