//! What a new installation needs: completions, manual pages, a configuration file and where it is
//! found.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tidings_testkit::Hub;

/// Runs `tidings` in this directory, with these variables as its only environment.
fn tidings_in(directory: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(args)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

/// Checks that a run failed with this code and one line, and returns the line.
#[track_caller]
fn mistake(output: &Output, code: i32) -> String {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

const COMMANDS: [&str; 7] = ["serve", "publish", "subscribe", "config", "key", "completions", "man"];

#[test]
fn every_shell_gets_completions_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&tidings_in(folder.path(), &[], &["completions", shell]));
        for word in COMMANDS.iter().copied().chain(["heartbeat-secs"]) {
            assert!(script.contains(word), "{word} is not in the completions for {shell}");
        }
    }
    let line = mistake(&tidings_in(folder.path(), &[], &["completions", "command.com"]), 2);
    assert!(line.contains("bash"), "{line}");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    let output = pages.to_str().unwrap();
    let line = mistake(&tidings_in(folder.path(), &[], &["man", "--output", output]), 1);
    assert!(line.contains(output), "{line}");
    fs::create_dir(&pages).unwrap();
    printed(&tidings_in(folder.path(), &[], &["man", "--output", output]));
    for command in COMMANDS {
        let page = fs::read_to_string(pages.join(format!("tidings-{command}.1"))).expect(command);
        let title = format!(".TH tidings-{command} 1");
        assert!(page.lines().any(|line| line.starts_with(&title)), "{title}");
        let alone = printed(&tidings_in(folder.path(), &[], &["man", command]));
        assert_eq!(alone.trim_end(), page.trim_end());
    }
    let nested = printed(&tidings_in(folder.path(), &[], &["man", "ticket", "new"]));
    assert!(nested.contains("tidings ticket new"), "{nested}");
    let line = mistake(&tidings_in(folder.path(), &[], &["man", "srve"]), 2);
    assert!(line.contains("`srve` is not a command"), "{line}");
}

#[test]
fn a_new_configuration_file_is_private_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let without = printed(&tidings_in(folder.path(), &[], &["serve", "--check"]));
    let said = printed(&tidings_in(folder.path(), &[], &["config", "init"]));
    assert!(said.contains("tidings serve --config tidings.toml --check"), "{said}");
    assert_eq!(printed(&tidings_in(folder.path(), &[], &["serve", "--check"])), without);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(printed(&tidings_in(folder.path(), &[], &["config", "init", "-"])), text);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_configuration_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    fs::write(&file, "heartbeat_secs = 7").unwrap();
    let line = mistake(&tidings_in(folder.path(), &[], &["config", "init"]), 2);
    assert!(line.contains("tidings.toml exists already"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "heartbeat_secs = 7");
    let line = mistake(&tidings_in(folder.path(), &[], &["config", "init", "missing/a.toml"]), 1);
    assert!(line.contains("cannot write missing/a.toml"), "{line}");
}

#[test]
fn a_hub_reads_the_configuration_of_its_directory_unless_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("tidings.toml", "heartbeat_secs = 7");
    write("named.toml", "heartbeat_secs = 9");
    let heartbeat = |variables: &[(&str, &str)], args: &[&str]| {
        let effective =
            printed(&tidings_in(folder.path(), variables, &[&["serve", "--check"], args].concat()));
        effective.lines().find(|line| line.starts_with("heartbeat_secs")).unwrap().to_owned()
    };
    assert_eq!(heartbeat(&[], &[]), "heartbeat_secs = 7  # file");
    assert_eq!(heartbeat(&[], &["--config", "named.toml"]), "heartbeat_secs = 9  # file");
    assert_eq!(heartbeat(&[("TIDINGS_CONFIG", "named.toml")], &[]), "heartbeat_secs = 9  # file");
    assert_eq!(heartbeat(&[], &["--config", "/dev/null"]), "heartbeat_secs = 15  # default");
    write("tidings.toml", "heartbeat_secs = \"often\"");
    let line = mistake(&tidings_in(folder.path(), &[], &["serve", "--check"]), 2);
    assert!(line.contains("`heartbeat_secs` in tidings.toml"), "{line}");
}

#[tokio::test]
async fn the_log_of_a_start_names_the_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.toml");
    fs::write(&file, "heartbeat_secs = 7").unwrap();
    let hub = Hub::serve(&["--config", file.to_str().unwrap()]).await.unwrap();
    let named = format!("config_file=\"{}\"", file.display());
    let output = hub.output();
    assert!(output.iter().any(|line| line.contains("listening") && line.contains(&named)), "{output:?}");
}
