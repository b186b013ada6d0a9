//! A configuration file to begin with: every setting with its meaning and its default, made of the
//! same table as `--help`. All of it is commented out, so it is the configuration of a hub without
//! a file.

use std::fmt::Write;

use super::{
    print::value,
    settings::{Kind, Preset, SETTINGS, Setting},
    tables::TABLES,
};

/// The longest line of a comment.
const COLUMNS: usize = 100;

const INTRODUCTION: &str = "\
    Configuration of `tidings serve`, which reads ./tidings.toml or else /etc/tidings/tidings.toml, unless \
    --config or TIDINGS_CONFIG names another file. Lines that begin with #name hold the default: remove the # \
    to set another value. Flags and environment variables override this file; the names are the same: \
    heartbeat_secs is --heartbeat-secs and TIDINGS_HEARTBEAT_SECS. `tidings serve --check` checks this file.";

/// The text of the file.
pub(crate) fn template() -> String {
    let mut text = comment(INTRODUCTION);
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            write!(text, "\n\n# ---- {group} ----\n").expect("writing to a string cannot fail");
        }
        let help = setting.help.strip_suffix("; repeatable").unwrap_or(setting.help);
        let sentence = match setting.default {
            Preset::Is(_) => format!("{help}."),
            Preset::Depends(default) => format!("{help}. Default: {default}."),
        };
        write!(text, "\n{}#{} = {}\n", comment(&sentence), setting.name, example(setting))
            .expect("writing to a string cannot fail");
    }
    text += "\n\n# ---- What only this file can set ----\n\n";
    for line in TABLES.lines() {
        writeln!(text, "{}{line}", if line.is_empty() { "" } else { "#" })
            .expect("writing to a string cannot fail");
    }
    text
}

/// The default, or where there is none to write down, the placeholder of `--help`.
fn example(setting: &Setting) -> String {
    match setting.default {
        Preset::Is(default) => value(setting, &[default.to_owned()]).to_string(),
        Preset::Depends(_) if setting.kind == Kind::Number => setting.value_name.to_owned(),
        Preset::Depends(_) => value(setting, &[setting.value_name.to_owned()]).to_string(),
    }
}

/// Wraps a text into lines that begin with `# `.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 && column + 1 + word.chars().count() > COLUMNS {
            lines.push('\n');
            column = 0;
        }
        let gap = if column == 0 { "# " } else { " " };
        lines += gap;
        lines += word;
        column += gap.len() + word.chars().count();
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn a_new_file_sets_nothing_until_a_line_is_uncommented() {
        let table: toml::Table = template().parse().unwrap();
        assert!(table.is_empty(), "{table}");
    }

    #[test]
    fn every_default_in_a_new_file_can_be_uncommented() {
        let text = template();
        let defaults = SETTINGS.iter().filter(|setting| matches!(setting.default, Preset::Is(_)));
        for setting in defaults {
            let prefix = format!("#{} = ", setting.name);
            let line = text.lines().find(|line| line.starts_with(&prefix)).expect(setting.name);
            let mut table: toml::Table = line[1..].parse().expect(line);
            let layer = layers::from_file(&mut table, "f.toml").expect(line);
            let words = layer.get(setting.name).expect(line).clone();
            let Preset::Is(default) = setting.default else { unreachable!("filtered above") };
            assert_eq!(words, [default]);
        }
    }

    #[test]
    fn the_tables_in_a_new_file_are_known_and_complete() {
        let mut table: toml::Table = TABLES.parse().unwrap();
        Authorize::take_from(&mut table, "f.toml").unwrap();
        Access::take_from(&mut table, "f.toml").unwrap();
        CertificateTables::take_from(&mut table, "f.toml").unwrap();
        // Only a build with it knows the table.
        if cfg!(feature = "acme") {
            Acme::take_from(&mut table, "f.toml").unwrap();
        } else {
            table.remove("acme");
        }
        Retention::take_from(&mut table, "f.toml").unwrap();
        HookTables::take_from(&mut table, "f.toml").unwrap();
        assert!(table.is_empty(), "{table}");
    }

    #[test]
    fn no_comment_is_wider_than_its_limit() {
        let is_wide = |line: &&str| line.starts_with("# ") && line.chars().count() > COLUMNS;
        let text = template();
        let wide: Vec<_> = text.lines().filter(is_wide).collect();
        assert!(wide.is_empty(), "{wide:?}");
    }
}
