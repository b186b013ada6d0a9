//! Tickets and cookies of the real hub: commands, configuration, streams, log.

use std::{fs, process::Output};

use tempfile::TempDir;
use tidings_testkit::{EventStream, Hub};
use tokio::process::Command;

const KEY: &str = "tk_a-key-that-may-do-everything";
const SECRET: &str = "a secret of tickets that is long enough";
const COOKIE: &str = "mercure_access_token";

fn configuration(folder: &TempDir, more: &str) -> String {
    let file = folder.path().join("tidings.toml");
    let text = format!(
        "{more}\nprivate_topics = [\"user-*\"]\n\
         [[key]]\nname = \"all\"\nsecret = \"{KEY}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n\
         [[ticket_secret]]\nid = \"1\"\nsecret = \"{SECRET}\"\n"
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn tidings(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidings")).args(args).output().await.unwrap()
}

async fn printed(args: &[&str]) -> String {
    let output = tidings(args).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The one line with which a command refuses.
async fn refused(args: &[&str]) -> String {
    let output = tidings(args).await;
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!((line.lines().count(), output.stdout.len()), (1, 0), "{line}");
    line
}

async fn publish(hub: &Hub, topic: &str, data: &str) {
    let request = format!("POST /topics/{topic}\nAuthorization: Bearer {KEY}");
    let answer = hub.request(&request, data.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_ticket_of_the_command_receives_private_events_across_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(&folder, "");
    let store = folder.path().join("events");
    let mut hub = Hub::serve(&["--config", &file, "--store", store.to_str().unwrap()]).await.unwrap();
    let ticket =
        printed(&["ticket", "new", "--config", &file, "--topic", "user-42", "--label", "kevin"]).await;
    let target = format!("/stream?hello=true&ticket={ticket}");
    let mut stream = EventStream::open(hub.address(), &target).await.unwrap();
    stream.next().await.unwrap();
    let hello = stream.last_event_id().to_owned();
    publish(&hub, "user-43", "not for this one").await;
    publish(&hub, "user-42", "for this one").await;
    assert_eq!(stream.next().await.unwrap().data, "for this one");
    let last = stream.last_event_id().to_owned();

    hub.kill().await.unwrap();
    hub.start_again().await.unwrap();
    publish(&hub, "user-42", "after the crash").await;
    // The notice at the beginning had an id as well, for a page that has received no event.
    for (since, expected) in [(last, "after the crash"), (hello, "for this one")] {
        let target = format!("{target}&since={}", since.replace('#', "%23"));
        let mut resumed = EventStream::open(hub.address(), &target).await.unwrap();
        let notice = resumed.next().await.unwrap().data;
        assert!(notice.contains(r#""kind":"hello""#), "{notice}");
        assert_eq!(resumed.next().await.unwrap().data, expected);
    }

    let tampered = ticket.replace("tt1.1.ey", "tt1.1.eX");
    for (target, status) in [
        (format!("/stream?ticket={tampered}"), 401),
        (format!("/stream?topic=user-43&ticket={ticket}"), 403),
        ("/stream?topic=user-42".to_owned(), 401),
    ] {
        let answer = hub.request(&format!("GET {target}"), b"").await.unwrap();
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(!answer.text().contains(&ticket), "{}", answer.text());
    }
    let output = hub.output().join("\n");
    for credential in [KEY, SECRET, &ticket, &tampered] {
        assert!(!output.contains(credential), "{output}");
    }
}

#[tokio::test]
async fn the_hub_makes_tickets_and_writes_with_a_cookie_need_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(&folder, "allow_origin = [\"https://app.example\"]");
    let hub = Hub::serve(&["--config", &file]).await.unwrap();
    let form = "POST /tickets\nContent-Type: application/x-www-form-urlencoded";
    let request = format!("{form}\nCookie: {COOKIE}={KEY}");
    let answer = hub.request(&request, b"topic=user-42").await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    let with_origin = format!("{request}\nOrigin: https://app.example");
    let answer = hub.request(&with_origin, b"topic=user-42&expires=60").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut stream =
        EventStream::open(hub.address(), &format!("/stream?ticket={}", answer.text())).await.unwrap();
    publish(&hub, "user-42", "with the ticket").await;
    assert_eq!(stream.next().await.unwrap().data, "with the ticket");
}

#[tokio::test]
async fn a_new_secret_is_a_valid_configuration_and_makes_tickets() {
    let folder = tempfile::tempdir().unwrap();
    let text = printed(&["ticket", "secret", "--id", "2026-11"]).await;
    let (secret, lines) = text.split_once('\n').unwrap();
    let file = folder.path().join("tidings.toml");
    fs::write(&file, lines).unwrap();
    let config = file.to_str().unwrap();
    let checked = printed(&["serve", "--check", "--config", config]).await;
    assert!(checked.contains("[[ticket_secret]]") && checked.contains("2026-11"), "{checked}");
    assert!(!checked.contains(secret), "{checked}");

    let secret_file = folder.path().join("secret");
    fs::write(&secret_file, format!("{secret}\n")).unwrap();
    let by_file = ["--secret-file", secret_file.to_str().unwrap(), "--secret-id", "2026-11"];
    let hub = Hub::serve(&["--config", config]).await.unwrap();
    for from in [&["--config", config][..], &by_file[..]] {
        let ticket = printed(&[&["ticket", "new", "--pattern", "/rooms/:id"], from].concat()).await;
        let summary = format!("GET /topics//rooms/7?ticket={ticket}\nAccept: application/json");
        let answer = hub.request(&summary, b"").await.unwrap();
        assert_eq!(answer.status, 200, "{from:?}");
    }
}

#[tokio::test]
async fn a_wrong_setting_or_argument_is_one_line_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = |secret: &str| {
        format!("[[key]]\nname = \"all\"\nsecret = \"{secret}\"\npublish = [\"*\"]\nsubscribe = [\"*\"]\n")
    };
    let tickets = |secret: &str| format!("[[ticket_secret]]\nid = \"1\"\nsecret = \"{secret}\"\n");
    let long = "a-secret-that-is-long-enough-for-a-ticket";
    for (text, part) in [
        (tickets("too short"), "at least 32"),
        (format!("{}{}", key(long), tickets(long)), "is that of the key `all`"),
        (format!("{0}{0}", tickets(long)), "used twice"),
        (format!("cookie_name = \"a b\"\n{}", key(long)), "cookie_name"),
        ("cookie_name = \"hub\"\n".to_owned(), "remove the setting"),
        (format!("no_auth = true\n{}", tickets(long)), "ticket secret"),
    ] {
        let file = write("wrong.toml", &text);
        let line = refused(&["serve", "--check", "--config", &file]).await;
        assert!(line.contains(part) && !line.contains(long) && !line.contains("too short"), "{line}");
    }
    let with = write("with.toml", &tickets(long));
    let without = write("without.toml", &key(long));
    let new = |args: &'static [&'static str]| [&["ticket", "new"], args].concat();
    for (args, part) in [
        ([&new(&["--topic", "a", "--config"])[..], &[&without]].concat(), "[[ticket_secret]]"),
        (new(&["--topic", "a"]), "--config"),
        (new(&["--topic", "a", "--secret-file", "x"]), "--secret-id"),
        ([&new(&["--config"])[..], &[&with]].concat(), "--topic TOPIC"),
        ([&new(&["--topic", "", "--config"])[..], &[&with]].concat(), "cannot be used"),
        (
            [&new(&["--topic", "a", "--expires", "25h", "--config"])[..], &[&with]].concat(),
            "longer than a day",
        ),
        ([&new(&["--topic", "a", "--streams-max", "0", "--config"])[..], &[&with]].concat(), "--streams-max"),
    ] {
        let line = refused(&args).await;
        assert!(line.contains(part) && !line.contains(long), "{args:?}: {line}");
    }
}
