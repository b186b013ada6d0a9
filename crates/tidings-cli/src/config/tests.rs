//! What all settings have in common, and combinations of them.

use std::io::Write;

use super::{
    settings::{Kind, SETTINGS, Setting},
    *,
};

const ROOM: usize = 500;
const KEY: &str = "[[key]]\nname = \"ci\"\nsecret = \"a-secret-of-some-length\"\npublish = [\"*\"]";

fn load(file: &str, flags: &[(&'static str, &str)]) -> Result<ServeConfig, Failure> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let flags = flags.iter().map(|(name, word)| (*name, vec![(*word).to_owned()])).collect();
    let given = SettingFlags { flags, ..SettingFlags::default() };
    super::load(Some(on_disk.path()), given, ROOM)
}

/// A word that this setting accepts and that is not its default.
fn sample(setting: &Setting) -> &'static str {
    match (setting.kind, setting.name) {
        (Kind::Flag, _) => "true",
        (Kind::Choice, _) => "false",
        (_, "retry_millis") => "700",
        (Kind::Number, _) => "7",
        (_, "listen" | "admin_listen") => "127.0.0.1:0",
        (_, "authorize") => "http://127.0.0.1:5000/stream",
        (_, "upstream") => "http://127.0.0.1:5000",
        (_, "trusted_proxy") => "192.0.2.1",
        (_, "client_address") => "forwarded",
        (_, "public_url" | "allow_origin") => "https://example.com",
        (_, "store") => "./events",
        (_, "sync") => "never",
        (_, "retain") => "1h",
        (_, "log") => "json",
        (_, "log_level") => "debug",
        (_, "mercure_revisions") => "0.x",
        (Kind::Texts, _) => "chat",
        (Kind::Urls, _) => "redis://localhost?channels=chat",
        (_, _) => "7KiB",
    }
}

#[test]
fn every_setting_reaches_the_hub() {
    let shown = |config: &ServeConfig| {
        let shown = format!("{config:?}");
        shown[..shown.find("written:").unwrap()].to_owned()
    };
    let proxied = format!("trusted_proxy = [\"10.0.0.0/8\"]\nclient_address = \"x-forwarded-for\"\n{KEY}");
    for setting in SETTINGS {
        // Some have an effect only in combination with others.
        let file = match setting.name {
            "sync" => "store = \"./events\"",
            "anonymous" | "cookie_name" => KEY,
            "authorize_secs" => "authorize = \"http://127.0.0.1:5000/stream\"",
            "upstream_secs" | "upstream_wait_secs" | "upstream_requests_max" => {
                "upstream = \"http://127.0.0.1:5000\""
            }
            "tls_certificate" | "tls_key" => "tls_certificate = \"a.pem\"\ntls_key = \"a.key\"",
            "trusted_proxy" | "client_address" => &proxied,
            _ => "",
        };
        let by_default = shown(&load(file, &[]).unwrap());
        let changed = shown(&load(file, &[(setting.name, sample(setting))]).unwrap());
        assert_ne!(changed, by_default, "{}", setting.name);
    }
}

#[test]
fn every_setting_refuses_nonsense_under_its_own_name() {
    // Topics may be any text; the hub checks them.
    for setting in SETTINGS.iter().filter(|setting| setting.name != "stream") {
        // Most words are names of files.
        let nonsense = match setting.name {
            "store" => "http:!",
            "pid_file" | "tls_certificate" | "tls_key" => "/",
            _ => "!",
        };
        let message = load("", &[(setting.name, nonsense)]).unwrap_err().to_string();
        let expected = format!("{}: `{nonsense}` ", setting.flag());
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn an_issuer_of_the_older_mercure_revision_needs_the_setting() {
    let issuer = "[[issuer]]\niss = \"symfony\"\nrevision = \"0.x\"\nsecret = \"a secret that is long enough for HS256\"";
    let message = load(issuer, &[]).unwrap_err().to_string();
    assert!(
        message.contains("`symfony`") && message.contains("mercure_revisions = [\"1.0\", \"0.x\"]"),
        "{message}"
    );
    let both = load(&format!("mercure_revisions = [\"1.0\", \"0.x\"]\n{issuer}"), &[]).unwrap();
    assert!(both.serves_older_mercure_revision());
    assert!(!load("", &[]).unwrap().serves_older_mercure_revision());
    let unknown = load("mercure_revisions = [\"0.9\"]", &[]).unwrap_err().to_string();
    assert!(unknown.contains("`0.9` is not a revision"), "{unknown}");
}

#[test]
fn a_printed_configuration_reads_back_as_the_same() {
    let file = "stream = [\"a\", \"b \\\" c\"]\nretain = \"1h\"\nprivate_topics = [\"user-*\"]\n";
    let config = load(file, &[("heartbeat_secs", "7"), ("verbose", "true")]).unwrap();
    let again = load(&config.to_toml(), &[]).unwrap();
    let settings = |config: &ServeConfig| {
        SETTINGS
            .iter()
            .map(|setting| config.written.merged.get(setting.name).map(|(_, words)| words.to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(settings(&again), settings(&config));
    assert_eq!(again.private_topics, config.private_topics);
}

#[test]
fn the_urls_of_a_hub_are_its_public_url_and_its_allowed_hosts() {
    let urls = |url: Option<&str>, hosts: &[&str]| {
        let hosts: Vec<HostName> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        own_urls(url.map(|url| url.parse().unwrap()).as_ref(), &hosts)
    };
    assert_eq!(urls(None, &[]), [""; 0]);
    assert_eq!(urls(Some("https://a.example:8443/hub"), &[]), ["https://a.example:8443/hub"]);
    assert_eq!(
        urls(Some("http://a.example:8080/hub"), &["b.example", "*.c.example"]),
        ["http://a.example:8080/hub", "http://b.example/hub"]
    );
    assert_eq!(urls(None, &["b.example"]), ["https://b.example/.well-known/mercure"]);
}

#[test]
fn an_issuer_in_single_brackets_is_refused_with_the_form_to_write() {
    let message = load("[issuer]\niss = \"a\"\nsecret = \"4711\"", &[]).unwrap_err().to_string();
    assert!(message.contains("must be written as [[issuer]]") && !message.contains("4711"), "{message}");
}

#[test]
fn a_password_in_a_url_is_not_shown() {
    let refused = load("", &[("store", "redis://me:hidden@host:port")]).unwrap_err().to_string();
    assert!(refused.contains("redis://…@host:port") && !refused.contains("hidden"), "{refused}");
    let word = "redis+sentinel://me:hidden@a,b?sentinel_password=hidden&wait=x";
    let refused = load("", &[("store", word)]).unwrap_err().to_string();
    assert!(refused.contains("a,b?sentinel_password=…&wait=") && !refused.contains("hidden"), "{refused}");
}

#[test]
fn default_retention_depends_on_the_store() {
    let kept = |file: &str| {
        let keeping = load(file, &[]).unwrap().keeping;
        (keeping.bytes_max, keeping.age_max.map(|age| age.as_secs()))
    };
    assert_eq!(kept(""), (64 << 20, None));
    assert_eq!(kept("store = \"redis://h\""), (256 << 20, Some(7 * 24 * 60 * 60)));
    assert_eq!(kept("store = \"events\""), (1 << 30, Some(7 * 24 * 60 * 60)));
    assert_eq!(kept("store = \"events\"\nretain = \"1h\"").1, Some(3_600));
    assert_eq!(kept("store = \"events\"\nretain = \"unlimited\"").1, None);
}

#[test]
fn a_directory_in_the_file_is_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(&file, "store = \"events\"").unwrap();
    let config = ServeConfig::read(Some(&file), SettingFlags::default(), ROOM).unwrap();
    assert_eq!(config.keeping.store, Store::Directory(folder.path().join("events")));
    let config = load("", &[("store", "events")]).unwrap();
    assert_eq!(config.keeping.store, Store::Directory("events".into()));
}

#[test]
fn only_a_directory_is_synced() {
    let message = load("sync = \"always\"", &[]).unwrap_err().to_string();
    assert!(message.starts_with("`sync` in ") && message.contains("--store DIR"), "{message}");
}

#[test]
fn fewer_streams_than_connections_are_allowed() {
    assert_eq!(load("", &[]).unwrap().streams_max, ROOM - 32);
    assert_eq!(load("", &[("connections_max", "2")]).unwrap().streams_max, 1);
    let refused = load("", &[("connections_max", "7"), ("streams_max", "7")]).unwrap_err().to_string();
    assert!(refused.contains("streams") && refused.contains("(7)"), "{refused}");
}

#[test]
fn a_hub_without_keys_stays_on_this_machine_unless_no_auth_is_given() {
    let open = ("listen", "0.0.0.0:80");
    let message = load("", &[open]).unwrap_err().to_string();
    assert!(message.starts_with("--listen: ") && message.contains("--no-auth"), "{message}");
    assert!(load("", &[open, ("no_auth", "true")]).is_ok());
    assert!(load(KEY, &[open]).is_ok());
    let message = load(KEY, &[("no_auth", "true")]).unwrap_err().to_string();
    assert!(message.starts_with("--no-auth: "), "{message}");
}

#[test]
fn a_setting_without_effect_is_refused() {
    let bare = "[[key]]\nname = \"ci\"\nsecret = \"a-secret-of-some-length\"";
    let bridge = "redis://h?channels=a";
    let named = |name: &str| format!("{bridge}&name={name}");
    let bridges = |urls: &[&str]| format!("bridge = {urls:?}");
    for (file, part) in [
        ("anonymous = false".to_owned(), "`anonymous` in "),
        ("anonymous = false\nno_auth = true".to_owned(), "`anonymous` in "),
        (bare.to_owned(), "[[key]] `ci` grants nothing"),
        (bridges(&[bridge, bridge]), "is given twice"),
        (format!("trusted_proxy = [\"10.0.0.1\"]\n{KEY}"), "`trusted_proxy` in "),
        (format!("client_address = \"forwarded\"\n{KEY}"), "no proxy is trusted"),
        (format!("listen = [\"127.0.0.1:0?client-address=forwarded\"]\n{KEY}"), "no proxy is trusted"),
        (format!("trusted_proxy = [\"10.0.0.1\"]\nclient_address = \"peer\"\n{KEY}"), "`trusted_proxy` in "),
        (
            format!(
                "trusted_proxy = [\"10.0.0.1\"]\nclient_address = \"forwarded\"\nlisten = [\"127.0.0.1:0?client-address=proxy-protocol\"]\n{KEY}"
            ),
            "every address has a source of its own",
        ),
        ("trusted_proxy = [\"10.0.0.1\"]\nclient_address = \"forwarded\"".to_owned(), "`client_address` in "),
        (bridges(&[&named("x"), "redis://i?channels=b&name=x"]), "is given twice"),
        ("listen = [\"127.0.0.1:0?upstream=false\"]".to_owned(), "there is no upstream"),
        (
            "admin_listen = [\"127.0.0.1:0?upstream=false\"]\nupstream = \"http://a\"".to_owned(),
            "never answers operators",
        ),
        (
            "listen = [\"127.0.0.1:0?upstream=false\"]\nupstream = \"http://a\"".to_owned(),
            "no client reaches the application",
        ),
    ] {
        let message = load(&file, &[]).unwrap_err().to_string();
        assert!(message.contains(part), "{file}: {message}");
    }
    for file in [
        format!("anonymous = false\n{KEY}"),
        format!("anonymous = false\n{bare}"),
        format!("{bare}\nadmin = true"),
        bridges(&[bridge, "redis://h?channels=b"]),
        bridges(&[&named("x"), &named("y")]),
        format!("trusted_proxy = [\"10.0.0.1\", \"unix\"]\nclient_address = \"forwarded\"\n{KEY}"),
        format!(
            "trusted_proxy = [\"10.0.0.1\"]\nlisten = [\"127.0.0.1:0?client-address=proxy-protocol\"]\n{KEY}"
        ),
        "trusted_proxy = [\"10.0.0.1\"]\nclient_address = \"forwarded\"\nno_auth = true".to_owned(),
    ] {
        load(&file, &[]).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

#[test]
fn a_setting_that_may_surprise_is_warned_about() {
    let private = "private_topics = [\"user-*\"]";
    for (file, part) in [
        (private.to_owned(), "every client on this machine receives"),
        (format!("{private}\nno_auth = true"), "no client can receive"),
        (KEY.to_owned(), "DNS rebinding"),
        ("connections_max = 501".to_owned(), "allows only 500"),
        (
            "trusted_proxy = [\"0.0.0.0/0\"]\nclient_address = \"forwarded\"\nno_auth = true".to_owned(),
            "every client can state any address",
        ),
    ] {
        let warnings = super::warnings(&load(&file, &[]).unwrap(), ROOM);
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{file}: {warnings:?}");
    }
    for file in [String::new(), format!("{private}\npublic_url = \"https://hub.example\"\n{KEY}")] {
        assert_eq!(super::warnings(&load(&file, &[]).unwrap(), ROOM), [""; 0], "{file}");
    }
}

#[test]
fn an_error_in_the_file_names_the_file() {
    for (file, part) in [
        ("lisen = \"a\"", "`lisen` in "),
        ("retry-millis = 7", "write `retry_millis`"),
        ("listen = ", ", line 1: "),
        ("\n\nlisten = \"a\"\nlisten = \"b\"", ", line 4: "),
    ] {
        let message = load(file, &[]).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let missing = ServeConfig::read(Some(Path::new("/nowhere.toml")), SettingFlags::default(), ROOM);
    let message = missing.unwrap_err().to_string();
    assert!(message.starts_with("--config: cannot read /nowhere.toml: "), "{message}");
}
