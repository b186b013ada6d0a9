//! The built binary as run from a terminal: what it prints, on which output, and its exit code.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Runs `tidings` to its end, with these variables as its only environment.
fn tidings_with(variables: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that exits without reading has closed the pipe.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn tidings(args: &[&str]) -> Output {
    tidings_with(&[], args, "")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Checks that a run failed with this code and one line, and returns the line.
#[track_caller]
fn mistake(output: &Output, code: i32) -> String {
    let line = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert_eq!(stdout(output), "", "{line}");
    line.strip_prefix("error: ").expect(line).trim_end().to_owned()
}

#[track_caller]
fn wrong(args: &[&str]) -> String {
    mistake(&tidings(args), 2)
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The value of a setting as `--check` prints it, with where it comes from.
#[track_caller]
fn checked<'a>(output: &'a Output, name: &str) -> &'a str {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output).lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap_or_default()
}

#[test]
fn help_states_the_defaults() {
    let help = tidings(&["serve", "--help"]);
    assert!(help.status.success());
    let help = stdout(&help).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "[default: 127.0.0.1:8080]",
        "[default: 64MiB in memory, 256MiB in Redis, 1GiB in a directory or on NATS]",
        "[default: unlimited in memory, 7d elsewhere]",
        "[default: always]",
        "a hub that is killed loses nothing",
        "[default: 15]",
        "[default: 1000]",
        "[default: 1MiB]",
        "loopback excepted",
        "Flags override the environment",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
    for command in [
        "serve",
        "run",
        "publish",
        "subscribe",
        "topics",
        "token",
        "ticket",
        "key",
        "health",
        "demo",
        "bench",
    ] {
        assert!(stdout(&tidings(&["--help"])).contains(command));
        assert!(tidings(&[command, "--help"]).status.success());
    }
    assert!(stdout(&tidings(&["--version"])).starts_with("tidings "));
}

#[test]
fn a_wrong_command_line_is_one_line_with_the_fix() {
    for (args, parts) in [
        (&["srve"][..], &["srve", "'serve'"][..]),
        (&["serve", "--lisen", "x"], &["--lisen", "'--listen'"]),
        (&["serve", "--listen", "8080"], &["--listen", "`8080`", "127.0.0.1:8080"]),
        (&["serve", "--listen", "0.0.0.0:0"], &["--listen", "tidings key new", "--no-auth"]),
        (&["serve", "--store", "redis://localhost/x"], &["--store", "`redis://localhost/x`", "database"]),
        (&["serve", "--store", "nats://localhost/a.b"], &["--store", "nats://host:4222/name"]),
        (&["serve", "--store", "http://localhost"], &["--store", "http: is unknown", "./events"]),
        (&["serve", "--store", "~/events"], &["--store", "the full path"]),
        (&["serve", "--sync", "always"], &["--sync", "--store DIR"]),
        (&["serve", "--store", "./events", "--sync", "often"], &["--sync", "`often`", "interval=5s"]),
        (&["demo", "--store", "memory"], &["--store", "`memory`", "memory:"]),
        (&["serve", "--retain", "1"], &["--retain", "`1`", "1h"]),
        (&["serve", "--retain-bytes", "lots"], &["--retain-bytes", "`lots`", "1.5MiB"]),
        (&["serve", "--retry-millis", "-1"], &["--retry-millis", "`-1`"]),
        (&["serve", "--retry-millis", "0"], &["--retry-millis", "`0`", "from 100ms to"]),
        (&["serve", "--retry-millis", "99999999999"], &["--retry-millis", "from 100ms to"]),
        (&["serve", "--heartbeat-secs", "0"], &["--heartbeat-secs", "`0`"]),
        (
            &["serve", "--heartbeat-secs", "41"],
            &["--heartbeat-secs", "`41`", "40", "after 45 seconds of silence"],
        ),
        (
            &["serve", "--allow-origin", "https://a.example/page"],
            &["--allow-origin", "leave out what follows"],
        ),
        (&["serve", "--allow-origin", "https://a.*.example"], &["--allow-origin", "https://*.example.com"]),
        (&["serve", "--allow-origin", "null"], &["--allow-origin", "opened from a file"]),
        (&["serve", "--allow-host", "https://a.example"], &["--allow-host", "leave out the scheme"]),
        (&["serve", "--allow-host", "*"], &["--allow-host", "*.example.com"]),
        (&["demo", "--allow-host", "a.example:80"], &["--allow-host", "leave out the scheme, the port"]),
        (&["serve", "--public-url", "hub.example"], &["--public-url", "https://hub.example.com"]),
        (&["serve", "--public-url", "http://a.example/stream"], &["--public-url", "/stream"]),
        (&["serve", "--stream", ""], &["--stream", "empty"]),
        (&["serve", "--bridge", "redis://localhost"], &["--bridge", "channels=chat"]),
        (&["serve", "--bridge", "redis://h?channels=a&format=sse"], &["--bridge", "flask-sse"]),
        (&["serve", "--verbose=maybe"], &["--verbose", "`maybe`"]),
        (&["serve", "--log", "xml"], &["--log", "text nor json"]),
        (&["serve", "--anonymous", "false"], &["--anonymous", "tidings key new"]),
        (&["serve", "--config", ""], &["--config"]),
        (&["serve", "--config="], &["--config"]),
        (&["serve", "--config", "/nowhere/t.toml"], &["--config", "/nowhere/t.toml"]),
        (&["publish"], &["<TOPIC>"]),
        (&["publish", "..", "x"], &["`..`"]),
        (&["publish", "a", "b", "--url", "ftp://x"], &["--url", "http://"]),
        (&["publish", "a", "b", "--url", "http://u@x"], &["--url", "user name", "http://:KEY@"]),
        (&["publish", "a", "b", "--url", "http://:k@x", "--token", "t"], &["--url", "one of the two"]),
        (&["bench", "idle", "--url", "http://:k@x", "--token", "t"], &["--url", "one of the two"]),
        (&["health", "--url", "127.0.0.1:8080"], &["--url", "http://127.0.0.1:8080"]),
        (&["run", "gunicorn"], &["gunicorn"]),
        (&["run", "--restart", "often", "--", "true"], &["--restart", "on-failure"]),
        (&["publish", "a", "b", "--token", "a b"], &["--token"]),
        (&["subscribe", "a", "--since", ""], &["--since", "earliest"]),
        (&["token", "new", "--issuer", "a"], &["--audience"]),
        (&["token", "new", "--issuer", "a", "--audience", "b"], &["--publish", "--subscribe"]),
        (&["token", "new", "--issuer", "a", "--audience", "b", "--publish", "c"], &["--secret-file"]),
        (&["demo", "--listen", "x"], &["--listen", "127.0.0.1:8080"]),
        (&["key", "new", "--nme", "x"], &["--nme", "'--name'"]),
    ] {
        let line = wrong(args);
        for part in parts {
            assert!(line.contains(part), "{args:?} gives {line:?} without {part:?}");
        }
    }
}

#[test]
fn no_error_message_shows_a_secret() {
    let folder = Folder::new();
    for config in [
        "[[key]]\nname = \"a\"\nsecret = \"4711\"",
        "[[key]]\nname = \"a\"\nsecret = 4711",
        "[[key]]\nname = \"a\"\nsecret = \"4711\"\nsecret_file = \"x\"",
        "[[key]]\nname = \"a\"\nsecret = \"4711-4711-4711-4711\"\npublish = [\"\"]",
        "[[issuer]]\niss = \"a\"\naudience = \"https://a.example\"\nsecret = \"4711\"",
        "[[issuer]]\niss = \"a\"\nsecret = \"4711\"",
        "[[key]]\nname = \"a\"\nsecret = 4711abc",
        "[[key]]\nname = \"a\"\nsecret = \"4711",
    ] {
        let config = folder.file("t.toml", config);
        let line = wrong(&["serve", "--check", "--config", &config]);
        assert!(!line.contains("4711"), "{line}");
    }
    assert!(!wrong(&["publish", "a", "b", "--token", "47 11"]).contains("47 11"));
    assert!(!wrong(&["publish", "a", "b", "--url", "http://u:4711@a.example"]).contains("4711"));
}

#[test]
fn an_error_in_the_file_names_its_line_or_setting() {
    let folder = Folder::new();
    let issuer = "[[issuer]]\niss = \"a\"\naudience = \"https://a.example\"\nsecret = \"x\"\n";
    for (text, part) in [
        ("listen = \"127.0.0.1:0\"\nlisten = ", "t.toml, line 2"),
        ("lisen = \"127.0.0.1:0\"", "`lisen` in "),
        ("heartbeat-secs = 7", "`heartbeat_secs`"),
        ("heartbeat_secs = \"soon\"", "`heartbeat_secs` in "),
        ("no_auth = \"yes\"", "true or false"),
        ("[[key]]\nname = \"a\"", "[[key]] number 1"),
        ("[[key]]\nname = \"a\"\nsecret_file = \"missing\"", "missing"),
        ("[[key]]\nname = \"a\"\nsecret_env = \"NOT_SET\"", "`NOT_SET`"),
        ("[[keys]]\nname = \"a\"", "`keys`"),
        ("private_topics = [\"\"]", "`private_topics`"),
        (&format!("{issuer}algorithms = [\"none\"]"), "[issuer]"),
    ] {
        let config = folder.file("t.toml", text);
        let line = wrong(&["serve", "--config", &config]);
        assert!(line.contains(part), "{line}");
    }
    let folder = folder.0.path().to_str().unwrap();
    assert!(wrong(&["serve", "--config", folder]).contains("--config"));
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["serve", "demo"] {
        let line = mistake(&tidings(&[command, "--listen", &address]), 1);
        assert!(line.contains(&address) && line.contains("another program"), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn a_store_that_cannot_be_opened_is_one_line_and_exit_code_1() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    let below = format!("{file}/events");
    let mut stores = vec![(file.as_str(), "is not a directory"), (&below, "Not a directory")];
    // No user can create a directory there, not even root.
    if cfg!(target_os = "linux") {
        stores.push(("/sys/tidings", "cannot be opened"));
    }
    for (store, part) in stores {
        for command in ["serve", "demo"] {
            let line = mistake(&tidings(&[command, "--listen", "127.0.0.1:0", "--store", store]), 1);
            assert!(line.starts_with("--store: ") && line.contains(store) && line.contains(part), "{line}");
        }
    }
}

#[test]
fn checking_a_configuration_opens_no_store() {
    let folder = Folder::new();
    let store = folder.0.path().join("events");
    let output = tidings(&["serve", "--check", "--store", store.to_str().unwrap()]);
    assert_eq!(checked(&output, "retain"), "\"7d\"  # default");
    assert_eq!(checked(&output, "sync"), "\"always\"  # default");
    assert!(!store.exists());
}

#[test]
fn an_unreachable_hub_is_one_line_and_exit_code_4() {
    // A port that is bound and not listened on refuses connections.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap().as_socket().unwrap());
    for command in [&["publish", "a", "b"][..], &["topics", "delete", "a"], &["health"]] {
        let line = mistake(&tidings(&[command, &["--url", &url]].concat()), 4);
        assert!(line.starts_with("cannot reach ") || line.starts_with("no hub answers at "), "{line}");
        assert!(line.contains(&url) && line.contains("refused"), "{line}");
    }
}

#[test]
fn check_prints_the_effective_configuration_without_secrets() {
    let folder = Folder::new();
    let secret = "a-secret-that-is-not-shown-anywhere-1";
    folder.file("secret", &format!("{secret}-2\n"));
    let config = folder.file(
        "t.toml",
        &format!(
            "retain = \"1h\"\nprivate_topics = [\"user-*\"]\n\
             [[key]]\nname = \"one\"\nsecret = \"{secret}-1\"\npublish = [\"*\"]\n\
             [[key]]\nname = \"two\"\nsecret_file = \"secret\"\nsubscribe = [\"*\"]\n\
             [[key]]\nname = \"three\"\nsecret_env = \"KEY_THREE\"\npublish = [\"chat\"]\n\
             [[issuer]]\niss = \"https://app.example\"\naudience = \"https://hub.example\"\nsecret = \"{secret}-4\"\n"
        ),
    );
    let check = ["serve", "--check", "--config", &config];
    let variable = |suffix| tidings_with(&[("KEY_THREE", &format!("{secret}-{suffix}"))], &check, "");
    let output = variable("3");
    assert_eq!(checked(&output, "retain"), "\"1h\"  # file");
    assert_eq!(checked(&output, "listen"), "[\"127.0.0.1:8080\"]  # default");
    let printed = stdout(&output);
    for part in
        ["private_topics = [\"user-*\"]", "secret = \"[hidden]\"", "secret_env = \"KEY_THREE\"", "[issuer]"]
    {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(!printed.contains(secret), "{printed}");
    // That two keys have the same secret is only detected after the secrets are read.
    let line = mistake(&variable("2"), 2);
    assert!(!line.contains(secret), "{line}");
}

#[test]
fn retention_rules_need_a_store_in_a_directory() {
    let folder = Folder::new();
    let config = folder.file("hub.toml", "[[retention]]\npattern = \"/rooms/:room\"\nbytes = \"10MiB\"\n");
    let line = wrong(&["serve", "--check", "--config", &config]);
    assert!(line.starts_with("[[retention]] in ") && line.contains("--store DIR"), "{line}");
    let output = tidings(&["serve", "--check", "--store", "./events", "--config", &config]);
    let printed = stdout(&output);
    assert!(printed.contains("[[retention]]\npattern = \"/rooms/:room\"\nbytes = \"10MiB\""), "{printed}");
    let again = folder.file("again.toml", printed);
    assert_eq!(
        stdout(&tidings(&["serve", "--check", "--config", &again])).split_once("[[retention]]").unwrap().1,
        printed.split_once("[[retention]]").unwrap().1
    );
}

#[test]
fn the_output_of_check_is_a_valid_configuration() {
    let folder = Folder::new();
    let output = tidings(&["serve", "--check", "--stream", "a b", "--retry-millis", "700", "--verbose"]);
    let config = folder.file("t.toml", stdout(&output));
    let again = tidings(&["serve", "--check", "--config", &config]);
    assert_eq!(checked(&again, "retry_millis"), "700  # file");
    assert_eq!(checked(&again, "stream"), "[\"a b\"]  # file");
    assert_eq!(checked(&again, "verbose"), "true  # file");
}

#[test]
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
    let folder = Folder::new();
    let config = folder.file("t.toml", "retry_millis = 1001\nstream = [\"file\"]\n");
    let check = ["serve", "--check", "--config", &config];
    let environment = [("TIDINGS_RETRY_MILLIS", "1002"), ("TIDINGS_STREAM", "a, b"), ("TIDINGS_LOG", "")];
    let file = tidings(&check);
    assert_eq!(checked(&file, "retry_millis"), "1001  # file");
    let output = tidings_with(&environment, &check, "");
    assert_eq!(checked(&output, "retry_millis"), "1002  # environment");
    assert_eq!(checked(&output, "stream"), "[\"a\", \"b\"]  # environment");
    assert_eq!(checked(&output, "log"), "\"text\"  # default");
    let flags = [&check[..], &["--retry-millis", "1003", "--stream", "c"]].concat();
    let output = tidings_with(&environment, &flags, "");
    assert_eq!(checked(&output, "retry_millis"), "1003  # flag");
    assert_eq!(checked(&output, "stream"), "[\"c\"]  # flag");
    // An environment variable can name the file.
    let output = tidings_with(&[("TIDINGS_CONFIG", &config)], &["serve", "--check"], "");
    assert_eq!(checked(&output, "retry_millis"), "1001  # file");
    let line = mistake(&tidings_with(&[("TIDINGS_RETRY_MILLIS", "x")], &["serve"], ""), 2);
    assert!(line.starts_with("TIDINGS_RETRY_MILLIS: `x`"), "{line}");
}

#[test]
fn a_misspelt_variable_is_named_in_one_warning() {
    let folder = Folder::new();
    let key = "public_url = \"https://hub.example\"\n[[key]]\nname = \"app\"\nsecret_env = \"TIDINGS_KEY_OF_APP\"\npublish = [\"*\"]\n";
    let config = folder.file("t.toml", key);
    let secret = ("TIDINGS_KEY_OF_APP", "0123456789abcdef0123456789abcdef");
    let others = [("TIDINGS_RETAIN_BYTE", "1"), ("TIDINGS_SERVICE_HOST", "10.0.0.1"), secret];
    let output = tidings_with(&others, &["serve", "--check", "--config", &config], "");
    assert!(output.status.success(), "{}", stderr(&output));
    let warning = stderr(&output);
    assert!(warning.contains(" TIDINGS_RETAIN_BYTE "), "{warning}");
    assert!(warning.contains("did you mean TIDINGS_RETAIN_BYTES?"), "{warning}");
    assert_eq!(warning.lines().count(), 1, "{warning}");

    // Other commands ignore variables that may be meant for a hub.
    let output = tidings_with(&[("TIDINGS_TOKNE", "x"), secret], &["key", "new"], "");
    let warning = stderr(&output);
    assert!(warning.contains("did you mean TIDINGS_TOKEN?") && warning.lines().count() == 1, "{warning}");
}

#[test]
fn empty_data_is_not_published() {
    for (args, input) in [
        (&["publish", "chat"][..], ""),
        (&["publish", "chat"], "\n"),
        (&["publish", "chat", "-"], ""),
        (&["publish", "chat", ""], "unread"),
    ] {
        let line = mistake(&tidings_with(&[], args, input), 2);
        assert!(line.contains("--allow-empty"), "{line}");
    }
}

#[test]
fn with_a_json_log_a_failure_is_json_too() {
    let folder = Folder::new();
    let config = folder.file("t.toml", "heartbeat_secs = 0");
    for (args, code) in [
        (&["serve", "--log", "json", "--config", &config][..], 2),
        (&["serve", "--log", "json", "--heartbeat-secs", "0"], 2),
        (&["serve", "--log", "json", "--listen", "127.0.0.1:0", "--store", "/dev/null"], 1),
    ] {
        let output = tidings(args);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
        let line: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
        assert_eq!(line["level"], "ERROR", "{line}");
        assert!(!line["fields"]["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_pid_file_of_another_running_process_is_not_changed() {
    let folder = Folder::new();
    let file = folder.file("pid", &format!("{}\n", std::process::id()));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--pid-file", &file];
    let line = mistake(&tidings(&serve), 1);
    assert!(line.contains("--pid-file") && line.contains(&std::process::id().to_string()), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n", std::process::id()));
}

#[test]
fn a_new_token_shows_its_claims() {
    let folder = Folder::new();
    let secret = folder.file("secret", "0123456789abcdef0123456789abcdef\n");
    let issuer = ["--issuer", "https://app.example", "--audience", "https://hub.example"];
    let rights = ["--publish", "chat", "--subscribe", "user-*", "--payload", "{\"name\":\"é\"}"];
    let minted = tidings(
        &[&["token", "new"][..], &issuer[..], &rights[..], &["--expires", "2h", "--secret-file", &secret]]
            .concat(),
    );
    assert!(minted.status.success(), "{}", stderr(&minted));
    let token = stdout(&minted).trim_end();
    let by_pipe = tidings_with(&[], &["token", "show", "-"], stdout(&minted));
    for shown in [tidings(&["token", "show", token]), by_pipe] {
        assert!(shown.status.success(), "{}", stderr(&shown));
        let value: serde_json::Value = serde_json::from_str(stdout(&shown)).unwrap();
        let claims = &value["claims"];
        assert_eq!(value["header"]["alg"], "HS256");
        assert_eq!(claims["iss"], "https://app.example");
        assert_eq!(claims["aud"], "https://hub.example");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
        let details = claims["authorization_details"].to_string();
        for part in ["\"chat\"", "\"user-*\"", "urlpattern", "\"é\""] {
            assert!(details.contains(part), "{part} in {details}");
        }
        let note = stderr(&shown);
        assert!(note.contains("The signature is not verified") && note.contains("It expires in "), "{note}");
    }
    mistake(&tidings(&["token", "show", "no.token"]), 1);
    let shown = tidings(&["token", "show", "--json", token]);
    assert_eq!((stdout(&shown).lines().count(), stderr(&shown)), (1, ""));
    assert_eq!(json(&shown)["claims"]["iss"], "https://app.example");
}

#[test]
fn a_token_of_the_older_revision_has_the_claim_mercure() {
    let folder = Folder::new();
    let secret = "0123456789abcdef0123456789abcdef";
    let file = folder.file("secret", secret);
    let config = folder.file(
        "hub.toml",
        &format!(
            "mercure_revisions = [\"1.0\", \"0.x\"]\npublic_url = \"https://hub.example\"\n\
             [[issuer]]\niss = \"a\"\nsecret = \"{secret}-of-a\"\n\
             [[issuer]]\niss = \"symfony\"\nrevision = \"0.x\"\nsecret = \"{secret}\"\n"
        ),
    );
    let grants =
        ["--publish", "*", "--subscribe", "https://example.com/books/{id}", "--payload", "{\"name\":\"é\"}"];
    let without_config = ["--revision", "0.x", "--secret-file", &file];
    let with_config = ["--config", &config, "--issuer", "symfony"];
    for from in [&without_config[..], &with_config] {
        let minted = tidings(&[&["token", "new", "--expires", "2h"][..], from, &grants].concat());
        assert!(minted.status.success(), "{}", stderr(&minted));
        let shown = json(&tidings(&["token", "show", "--json", stdout(&minted).trim_end()]));
        let claims = &shown["claims"];
        assert_eq!((&shown["header"]["typ"], &shown["header"]["alg"]), (&"JWT".into(), &"HS256".into()));
        assert_eq!(
            claims["mercure"],
            serde_json::json!({ "publish": ["*"], "subscribe": ["https://example.com/books/{id}"], "payload": { "name": "é" } })
        );
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7200);
        assert_eq!((claims.get("aud"), claims.get("iss")), (None, None));
    }
    let refused = |args: &[&str]| wrong(&[&["token", "new"][..], args].concat());
    let older = |more: &[&str]| refused(&[&without_config[..], more].concat());
    assert!(older(&["--publish", "rooms/*"]).contains("URI Template"));
    assert!(older(&["--publish", "a", "--audience", "https://hub.example"]).starts_with("--audience: "));
    assert!(older(&["--publish", "a", "--issuer", "a"]).starts_with("--issuer: "));
    assert!(
        refused(&["--publish", "a", "--revision", "0.8", "--secret-file", &file]).contains("use 1.0 or 0.x")
    );
    assert!(
        refused(&["--publish", "a", "--revision", "1.0", "--secret-file", &file]).contains("--issuer NAME")
    );
    let other = ["--publish", "a", "--config", &config, "--issuer", "a", "--revision", "0.x"];
    assert!(refused(&other).contains("another revision"));
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    assert_eq!(stdout(output).lines().count(), 1, "{}", stdout(output));
    serde_json::from_str(stdout(output)).unwrap()
}

#[test]
fn credentials_are_printed_as_json_for_scripts() {
    let folder = Folder::new();
    let secret = folder.file("secret", "0123456789abcdef0123456789abcdef\n");
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();

    let key = json(&tidings(&["key", "new", "--name", "my \"app\"", "--json"]));
    assert_eq!((names(&key), &key["name"]), (vec!["name".into(), "secret".into()], &"my \"app\"".into()));

    let new =
        ["token", "new", "--issuer", "a", "--audience", "https://b.example", "--publish", "c", "--json"];
    let token = json(&tidings(&[&new[..], &["--secret-file", &secret]].concat()));
    let shown = json(&tidings(&["token", "show", "--json", token["token"].as_str().unwrap()]));
    assert_eq!(
        (names(&token), &token["expires_at"]),
        (vec!["expires_at".into(), "token".into()], &shown["claims"]["exp"])
    );

    let made = json(&tidings(&["ticket", "secret", "--id", "7", "--json"]));
    assert_eq!((names(&made), &made["id"]), (vec!["id".into(), "secret".into()], &"7".into()));
    let secret = folder.file("ticket", made["secret"].as_str().unwrap());
    let new = ["ticket", "new", "--topic", "a", "--secret-id", "7", "--secret-file", &secret, "--json"];
    let ticket = json(&tidings(&new));
    assert_eq!(names(&ticket), ["expires_at", "id", "ticket"]);
    assert!(ticket["expires_at"].is_u64() && ticket["ticket"].is_string(), "{ticket}");
}

#[test]
fn short_help_is_a_part_of_the_help() {
    for command in ["publish", "subscribe", "serve", "bench"] {
        let (short, long) = (tidings(&[command, "-h"]), tidings(&[command, "--help"]));
        assert!(short.status.success() && long.status.success());
        assert!(stdout(&short).lines().count() < stdout(&long).lines().count(), "{}", stdout(&short));
        assert!(
            stdout(&short).contains("--help") && !stdout(&short).contains("[default"),
            "{}",
            stdout(&short)
        );
    }
    let help = tidings(&["publish", "--help"]);
    assert!(stdout(&help).contains("tail -f app.log | tidings publish logs --lines"));
    assert!(stdout(&tidings(&["--help"])).contains("Exit codes:"));
}

#[test]
fn a_token_is_signed_with_the_right_kind_of_key() {
    let folder = Folder::new();
    let new = ["token", "new", "--issuer", "a", "--audience", "https://b.example", "--publish", "c"];
    let with = |more: &[&str]| wrong(&[&new[..], more].concat());
    let short = folder.file("short", "4711");
    let line = with(&["--secret-file", &short]);
    assert!(line.starts_with("--secret-file: ") && !line.contains("4711"), "{line}");
    let pem = folder.file("pem", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n");
    assert!(with(&["--secret-file", &pem]).contains("--key-file"));
    assert!(with(&["--key-file", &pem]).starts_with("--key-file: "));
    assert!(with(&["--key-file", &short]).contains("no key in PEM"));
    assert!(with(&["--secret-file", "/nowhere/s"]).contains("/nowhere/s"));
    assert!(with(&["--secret-file", &short, "--algorithm", "none"]).contains("HS256"));
    let config = folder.file("t.toml", "");
    assert!(wrong(&["token", "new", "--publish", "c", "--config", &config]).contains("[[issuer]]"));
}

#[test]
fn a_token_is_signed_with_the_chosen_key_of_the_chosen_issuer() {
    let folder = Folder::new();
    let issuer = |name: &str, keys: &[&str]| {
        let keys = keys.iter().map(|kid| {
            format!("[[issuer.key]]\nkid = \"{kid}\"\nsecret = \"a secret of {name} which is long enough, {kid}\"\n")
        });
        format!("[[issuer]]\niss = \"{name}\"\n{}", keys.collect::<Vec<_>>().concat())
    };
    let text =
        format!("public_url = \"https://hub.example\"\n{}{}", issuer("a", &["1", "2"]), issuer("b", &["1"]));
    let config = folder.file("t.toml", &text);
    let new = ["token", "new", "--publish", "c", "--config", &config];
    let header = |more: &[&str]| {
        let minted = tidings(&[&new[..], more].concat());
        assert!(minted.status.success(), "{}", stderr(&minted));
        let shown = tidings(&["token", "show", stdout(&minted).trim_end()]);
        let value: serde_json::Value = serde_json::from_str(stdout(&shown)).unwrap();
        (value["claims"]["iss"].clone(), value["header"]["kid"].clone())
    };
    assert_eq!(header(&["--issuer", "a"]), ("a".into(), "1".into()));
    assert_eq!(header(&["--issuer", "a", "--kid", "2"]), ("a".into(), "2".into()));
    assert_eq!(header(&["--issuer", "b"]), ("b".into(), "1".into()));
    assert!(wrong(&new).contains("--issuer"));
    assert!(wrong(&[&new[..], &["--issuer", "c"]].concat()).contains("--issuer"));
    assert!(wrong(&[&new[..], &["--issuer", "b", "--kid", "2"]].concat()).starts_with("--kid: "));
}

#[test]
fn a_new_key_is_a_secret_and_a_valid_configuration() {
    let folder = Folder::new();
    let output = tidings(&["key", "new", "--name", "my \"app\""]);
    assert!(output.status.success());
    let printed = stdout(&output);
    let secret = printed.lines().next().unwrap();
    assert!(secret.len() >= 40, "{secret}");
    let snippet = &printed[printed.find("[[key]]").unwrap()..];
    assert!(snippet.contains(secret));
    let config = folder.file("t.toml", snippet);
    let check = tidings(&["serve", "--check", "--config", &config]);
    assert!(check.status.success(), "{}", stderr(&check));
    assert_ne!(stdout(&tidings(&["key", "new"])).lines().next(), Some(secret));
}

/// Subscribers of a missing shard would receive nothing, so a hub that cannot start all shards does
/// not start.
#[cfg(target_os = "linux")]
#[test]
fn a_hub_without_descriptors_for_its_shards_does_not_start() {
    let script = "ulimit -n \"$1\"; exec \"$0\" serve --listen 127.0.0.1:0 --threads 8";
    let mut reasons = Vec::new();
    for files in (16..200).step_by(4) {
        let mut hub = Command::new("/bin/sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_tidings"), &files.to_string()])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(hub.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        if !line.starts_with("error: ") {
            // It serves.
            hub.kill().unwrap();
            hub.wait().unwrap();
            break;
        }
        let rest = hub.wait_with_output().unwrap();
        assert_eq!((rest.status.code(), stderr(&rest)), (Some(1), ""), "{line}");
        reasons.push(line);
    }
    assert!(reasons.iter().any(|line| line.contains("cannot start a thread for the fan-out")), "{reasons:?}");
}
