//! `-h`: one short text for each option, made of those that `--help` prints in full.
//!
//! A text begins with its main clause. That alone is the short help; defaults, variables, values,
//! details and examples are in `--help`.

use std::ffi::OsString;

use clap::{Arg, Command};

/// What a clause ends with, from the strongest on.
const CLAUSE_ENDS: [&[&str]; 2] = [&["; ", ". ", ": ", " (", " [default"], &[", "]];
/// A clause longer than this is shortened at its first comma.
const CLAUSE_CHARS_MAX: usize = 60;

/// Whether these words, which request help, do so with `-h`, alone or behind other short flags.
pub(super) fn is_requested(words: &[OsString]) -> bool {
    words
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.as_encoded_bytes().starts_with(b"-") && is_short(word.as_encoded_bytes()))
}

fn is_short(word: &[u8]) -> bool {
    !word.starts_with(b"--") && word.ends_with(b"h")
}

/// The command, whose help is short, as is that of all commands below it.
pub(super) fn shortened(command: Command) -> Command {
    let about = command.get_about().map(|about| clause(&about.to_string()));
    let mut command = command
        .after_help("Defaults, details and examples: --help")
        .mut_args(shortened_arg)
        .mut_subcommands(shortened);
    if let Some(about) = about {
        command = command.about(about);
    }
    command
}

fn shortened_arg(arg: Arg) -> Arg {
    let help = arg.get_help().map(|help| clause(&help.to_string()));
    let takes_value = arg.get_action().takes_values();
    let arg = arg.hide_default_value(takes_value).hide_env(takes_value).hide_possible_values(takes_value);
    match help {
        Some(help) => arg.help(help),
        None => arg,
    }
}

/// The first clause of a text. A single word is none: it names what the text is about, as in
/// `storm: time to settle`.
fn clause(text: &str) -> String {
    let mut clause = text;
    for ends in CLAUSE_ENDS {
        let found = ends.iter().filter_map(|end| {
            let (first, _) = clause.split_once(end)?;
            first.contains(' ').then_some(first)
        });
        if let Some(first) = found.min_by_key(|first| first.len()) {
            clause = first;
        }
        if clause.chars().count() <= CLAUSE_CHARS_MAX {
            break;
        }
    }
    clause.to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_clause_is_the_beginning_of_a_text() {
        for (text, short) in [
            ("Print JSON", "Print JSON"),
            ("The topics; `*` is every topic. Without any", "The topics"),
            ("storm: time for the server to settle", "storm: time for the server to settle"),
            ("A token, or the secret of a key; safer elsewhere", "A token, or the secret of a key"),
        ] {
            assert_eq!(clause(text), short);
        }
    }

    #[test]
    fn only_a_short_flag_requests_short_help() {
        let requested = |line: &str| is_requested(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(requested("tidings publish -h") && requested("tidings serve -vh"));
        for line in ["tidings publish --help", "tidings help publish", "tidings run -- app -h"] {
            assert!(!requested(line), "{line}");
        }
    }

    /// Each option, argument and command has one line on a terminal of 100 columns, and where flags
    /// are long, one more for its text.
    #[test]
    fn short_help_has_one_short_text_for_each_option() {
        fn check(command: &Command) {
            let mut command = command.clone().term_width(100);
            let help = command.render_help().to_string();
            let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
            let (mut in_list, mut may_wrap) = (false, false);
            for line in help.lines() {
                let indent = line.len() - line.trim_start().len();
                let is_entry = matches!(indent, 2 | 6);
                let is_text = indent == 10 && may_wrap;
                assert!(!in_list || indent == 0 || is_entry || is_text, "{name}: {line:?}\n{help}");
                may_wrap = is_entry;
                assert!(line.chars().count() <= 100, "{name}: {line:?}");
                in_list = line.ends_with(':') && !line.starts_with(' ') || in_list && !line.is_empty();
            }
            for below in command.get_subcommands() {
                check(below);
            }
        }
        let mut tidings = shortened(super::super::Tidings::command());
        tidings.build();
        check(&tidings);
    }
}
