//! `[[hook]]`: applications are notified of who comes to a topic and who leaves it, in order, and
//! through the death of hubs and failures of their own.
//!
//! `TIDINGS_HOOK_KILLS=50` kills hubs more often.

#![cfg(unix)]

mod receiver;

use std::{env, fs, path::PathBuf};

use receiver::{Mode, Receiver};
use tempfile::TempDir;
use tidings_testkit::{Application, EventStream, Hub, NatsServer, PATIENCE, RedisServer, Reply};
use tokio::time::timeout;

/// How often a hub is killed by default.
const KILLS: usize = 3;

fn kills() -> usize {
    env::var("TIDINGS_HOOK_KILLS").map_or(KILLS, |text| text.parse().expect("a number of kills"))
}

/// Hubs with a hook, and an application that grants streams with the labels that clients ask for.
struct Setup {
    receiver: Receiver,
    application: Application,
    file: PathBuf,
    folder: TempDir,
}

impl Setup {
    async fn new(more: &str) -> Self {
        let grant = |request: &str| {
            let label = request.split_once("?user=").and_then(|(_, rest)| rest.split(' ').next());
            let label = label.map(|label| format!("&label={label}")).unwrap_or_default();
            Reply::subscribe(&format!("topic=chat{label}"))
        };
        let (receiver, application) = (Receiver::start().await, Application::start(grant).await.unwrap());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidings.toml");
        fs::write(&file, format!("presence_grace_secs = 1\n{}", receiver.hook(more))).unwrap();
        Self { receiver, application, file, folder }
    }

    async fn serve(&self, store: &str) -> Hub {
        let application = self.application.url("/stream");
        let config = self.file.to_str().unwrap();
        Hub::serve(&["--store", store, "--config", config, "--authorize", &application]).await.unwrap()
    }

    fn directory(&self) -> String {
        self.folder.path().join("store").display().to_string()
    }

    /// Everybody has left, and the receiver knows.
    async fn ends_with_nobody(&self) {
        let is_vacated =
            |events: &[receiver::Event]| events.last().is_some_and(|it| it.kind == "topic.vacated");
        self.receiver.waits("the end", is_vacated).await;
        assert_eq!(self.receiver.check().len(), 0);
    }
}

/// Opens a stream as soon as that works.
async fn open(hub: &Hub, user: &str) -> EventStream {
    let target = format!("/stream?user={user}");
    let opening = async {
        loop {
            if let Ok(stream) = EventStream::open(hub.address(), &target).await {
                return stream;
            }
        }
    };
    timeout(PATIENCE, opening).await.expect("a stream")
}

#[tokio::test]
async fn a_hook_reports_each_coming_and_each_leaving_once_and_no_reload() {
    let setup = Setup::new("").await;
    let hub = setup.serve("memory:").await;
    let receiver = &setup.receiver;
    let ann = open(&hub, "ann").await;
    receiver.has("presence.joined", Some("ann")).await;
    let [second_tab, bob] = [open(&hub, "ann").await, open(&hub, "bob").await];
    receiver.has("presence.joined", Some("bob")).await;
    // A reload: the next stream is there before the grace has passed.
    drop(ann);
    let reloaded = open(&hub, "ann").await;
    drop(bob);
    receiver.has("presence.left", Some("bob")).await;
    drop((reloaded, second_tab));
    setup.ends_with_nobody().await;
    let seen: Vec<_> = receiver.events().into_iter().map(|event| (event.kind, event.label)).collect();
    let ([ann, bob], none) = ([Some("ann".to_owned()), Some("bob".to_owned())], None::<String>);
    let expected = [
        ("topic.occupied", &none),
        ("presence.joined", &ann),
        ("presence.joined", &bob),
        ("presence.left", &bob),
        ("presence.left", &ann),
        ("topic.vacated", &none),
    ];
    assert_eq!(seen, expected.map(|(kind, label)| (kind.to_owned(), label.clone())));
}

#[tokio::test]
async fn a_hook_reports_only_what_it_names() {
    let setup = Setup::new("events = [\"topic.vacated\", \"presence.joined\"]").await;
    let hub = setup.serve("memory:").await;
    let ann = open(&hub, "ann").await;
    setup.receiver.has("presence.joined", Some("ann")).await;
    drop(ann);
    setup.receiver.has("topic.vacated", None).await;
    let kinds: Vec<_> = setup.receiver.events().into_iter().map(|event| event.kind).collect();
    assert!(kinds == ["presence.joined", "topic.vacated"], "{kinds:?}");
}

#[tokio::test]
async fn a_receiver_that_fails_gets_everything_again_until_it_accepts() {
    let setup = Setup::new("timeout_secs = 5").await;
    let mut hub = setup.serve("memory:").await;
    let receiver = &setup.receiver;
    receiver.set(Mode::Redirect);
    let ann = open(&hub, "ann").await;
    let line = hub.printed("a hook cannot be delivered").await.unwrap();
    assert!(line.contains("redirects are not followed"), "{line}");
    receiver.set(Mode::Fail);
    receiver.has("presence.joined", Some("ann")).await;
    let pending = async {
        loop {
            let metrics = hub.request("GET /metrics", b"").await.unwrap().text();
            let value = |name: &str| {
                let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
                line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
            };
            if value("tidings_hook_failed_total") >= 2 {
                return [value("tidings_hook_pending"), value("tidings_hook_delivered_total")];
            }
        }
    };
    assert_eq!(timeout(PATIENCE, pending).await.unwrap(), [2, 0]);
    receiver.set(Mode::Accept);
    hub.printed("a hook is delivered again").await.unwrap();
    assert!(receiver.repeats() > 0, "the same ids");
    drop(ann);
    setup.ends_with_nobody().await;
}

/// Kills hubs, while the receiver fails in turns.
async fn survives_kills(setup: &Setup, mut hubs: Vec<Hub>) {
    let receiver = &setup.receiver;
    let mut stays = open(&hubs[0], "stays").await;
    for number in 0..kills() {
        let index = number % hubs.len();
        receiver.set([Mode::Fail, Mode::Slow, Mode::Down, Mode::Accept][number % 4]);
        let leaving = format!("leaves-{number}");
        let leaves = open(&hubs[index], &leaving).await;
        if number % 2 == 0 {
            // Otherwise the hub dies while this is on its way, or before it has been noticed at all.
            receiver.set(Mode::Accept);
            receiver.has("presence.joined", Some(&leaving)).await;
        }
        hubs[index].kill().await.unwrap();
        drop((leaves, stays));
        receiver.set(Mode::Accept);
        hubs[index].start_again().await.unwrap();
        stays = open(&hubs[(number + 1) % hubs.len()], "stays").await;
        let new = format!("new-{number}");
        let stream = open(&hubs[index], &new).await;
        receiver.has("presence.joined", Some(&new)).await;
        if number % 2 == 0 {
            receiver.has("presence.left", Some(&leaving)).await;
        }
        drop(stream);
        receiver.check();
    }
    drop(stays);
    setup.ends_with_nobody().await;
    println!(
        "{} kills: {} changes in {} messages, {} repeated",
        kills(),
        receiver.events().len(),
        receiver.messages(),
        receiver.repeats()
    );
}

#[tokio::test]
async fn hooks_on_files_survive_kills_of_the_hub() {
    let setup = Setup::new("").await;
    let hub = setup.serve(&setup.directory()).await;
    survives_kills(&setup, vec![hub]).await;
}

#[tokio::test]
async fn hooks_on_redis_survive_kills_of_hubs() {
    let setup = Setup::new("").await;
    let server = RedisServer::start().await.unwrap();
    let hubs = vec![setup.serve(&server.url()).await, setup.serve(&server.url()).await];
    survives_kills(&setup, hubs).await;
}

#[tokio::test]
async fn hooks_on_nats_survive_kills_of_hubs() {
    let setup = Setup::new("").await;
    let server = NatsServer::start().unwrap();
    let store = format!("{}/hooks", server.url());
    let hubs = vec![setup.serve(&store).await, setup.serve(&store).await];
    survives_kills(&setup, hubs).await;
}

#[tokio::test]
async fn a_stopped_hub_leaves_the_hooks_to_another_at_once() {
    let setup = Setup::new("").await;
    let server = RedisServer::start().await.unwrap();
    let mut first = setup.serve(&server.url()).await;
    first.printed("this hub delivers the hooks").await.unwrap();
    let mut second = setup.serve(&server.url()).await;
    let _ann = open(&second, "ann").await;
    setup.receiver.has("presence.joined", Some("ann")).await;
    assert!(first.stop().await.unwrap().success());
    second.printed("this hub delivers the hooks").await.unwrap();
    let bob = open(&second, "bob").await;
    setup.receiver.has("presence.joined", Some("bob")).await;
    drop(bob);
    setup.receiver.has("presence.left", Some("bob")).await;
    assert_eq!(setup.receiver.check().len(), 2, "ann is present, and so the topic occupied");
}

#[tokio::test]
async fn a_hook_to_this_machine_is_refused_unless_the_configuration_allows_it() {
    let setup = Setup::new("").await;
    let config = fs::read_to_string(&setup.file).unwrap().replace("allow_private = true\n", "");
    fs::write(&setup.file, &config).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        fs::write(&setup.file, config.replace("127.0.0.1", host)).unwrap();
        let mut hub = setup.serve("memory:").await;
        let _ann = open(&hub, "ann").await;
        let line = hub.printed("a hook cannot be delivered").await.unwrap();
        assert!(line.contains("allow_private = true"), "{host}: {line}");
        assert_eq!(setup.receiver.messages(), 0, "{host}");
    }
}

#[tokio::test]
async fn presence_events_are_private_events_on_the_topic_of_the_presence() {
    let setup = Setup::new("").await;
    let application = setup.application.url("/stream");
    let args = ["--presence-events", "--presence-grace-secs", "1", "--authorize", &application];
    let hub = Hub::serve(&args).await.unwrap();
    let accept = ["Accept: text/event-stream"];
    let mut events = EventStream::open_with(hub.address(), "/topics/chat/presence", &accept).await.unwrap();
    let forged = hub.request("POST /topics/chat/presence", b"{}").await.unwrap();
    assert_eq!(forged.status, 403, "{forged}");
    let mut next = async || {
        let event = events.next().await.unwrap();
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((&data["topic"], data["type"].as_str()), (&"chat".into(), Some(&*event.event_type)));
        (event.event_type, data["label"].as_str().map(str::to_owned))
    };
    let ann = open(&hub, "ann").await;
    let mut seen = vec![next().await, next().await];
    drop(ann);
    seen.extend([next().await, next().await]);
    let [ann, none] = [Some("ann".to_owned()), None];
    let expected = [
        ("topic.occupied", &none),
        ("presence.joined", &ann),
        ("presence.left", &ann),
        ("topic.vacated", &none),
    ];
    assert_eq!(seen, expected.map(|(kind, label)| (kind.to_owned(), label.clone())));
}
