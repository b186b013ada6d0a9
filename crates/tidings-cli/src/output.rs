//! Standard output: it may be a file, a terminal, or somebody who has gone.

use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Prints a line. A reader that has gone, as `head` does after enough, ends the program quietly.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyListens,
        _ => Failure::runtime(format!("cannot write to standard output: {error}")),
    })
}

/// Prints what somebody else wrote. To a terminal, control characters would be commands; they are shown instead.
pub(crate) fn print_foreign(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print_line(&harmless(text)) } else { print_line(text) }
}

/// The text with control characters spelled out, but for line feeds and tabs.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_command_the_terminal() {
        assert_eq!(harmless("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(harmless("\u{1b}[2J\r\u{9b}x"), "\\u{1b}[2J\\r\\u{9b}x");
    }
}
