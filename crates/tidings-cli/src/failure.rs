//! Errors that end the program: one line on standard error, and an exit code.

use std::fmt;

use tidings_net::redacted;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong. Exit code 2.
    Usage(String),
    /// Something else went wrong. Exit code 1.
    Runtime(String),
    /// The application of `tidings run` has ended, or cannot be started. Its exit code.
    #[cfg(unix)]
    Status { status: u8, message: String },
    /// The reader of the output has closed it, as `head` does. That is not an error; exit code 0.
    OutputClosed,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn runtime(message: impl fmt::Display) -> Self {
        Self::Runtime(message.to_string())
    }
}

/// One line, whatever text of a file, a variable or a server it contains.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Runtime(message) => write_line(f, message),
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
