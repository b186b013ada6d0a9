//! Where a hub listens: several addresses, Unix sockets, inherited sockets, and upgrades that hand
//! over all of them.

#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv6Addr, SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
    process::{Command, Stdio},
};

use tidings_testkit::{Connection, EventStream, Hub, binary};

/// Runs `tidings serve` with arguments that it refuses, and returns the one line that it prints.
fn refused(args: &[&str]) -> String {
    let output = Command::new(binary().unwrap()).arg("serve").args(args).output().unwrap();
    assert!(!output.status.success(), "{args:?}");
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed
}

async fn ask(mut connection: Connection, head: &str) -> (u16, String) {
    connection.request(head, b"").await.unwrap();
    let response = connection.response().await.unwrap();
    (response.status, response.text())
}

/// A stream on a Unix socket receives what is published over TCP, and a stream on TCP what is
/// published over the Unix socket.
async fn serves_both(address: SocketAddr, path: &Path) {
    let unix = Connection::open_unix(path).await.unwrap();
    let mut over_unix = EventStream::on(unix, "/stream?topic=chat", &[]).await.unwrap();
    let mut over_tcp = EventStream::open(address, "/stream?topic=chat").await.unwrap();
    let tcp = Connection::open(address).await.unwrap();
    let unix = Connection::open_unix(path).await.unwrap();
    for (mut connection, data) in [(tcp, "over TCP"), (unix, "over a Unix socket")] {
        connection.request("POST /topics/chat", data.as_bytes()).await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
        assert_eq!(over_unix.next().await.unwrap().data, data);
        assert_eq!(over_tcp.next().await.unwrap().data, data);
    }
}

#[tokio::test]
async fn a_hub_serves_all_of_its_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let unix = format!("unix:{}?mode=600", path.display());
    let mut hub =
        Hub::serve_on_its_own(&["--listen", "127.0.0.1:0", "--listen", &unix, "--listen", "127.0.0.1:0"])
            .await
            .unwrap();
    let addresses = hub.addresses();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    assert_eq!(addresses[1], format!("unix:{}", path.display()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for address in [&addresses[0], &addresses[2]] {
        serves_both(address.parse().unwrap(), &path).await;
    }
    // The log names the URL at which this machine reaches the hub.
    hub.printed(&format!("url=\"http://{}\"", addresses[0])).await.unwrap();
    assert!(hub.stop().await.unwrap().success());
    assert!(!path.exists(), "the file is removed at the end");
}

#[tokio::test]
async fn localhost_and_all_addresses_are_reached_over_both_families() {
    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    for args in [&["--listen", "localhost:0"][..], &["--listen", ":0", "--no-auth"]] {
        let hub = Hub::serve_on_its_own(args).await.unwrap();
        let addresses = hub.addresses();
        let port = addresses[0].rsplit_once(':').unwrap().1.parse().unwrap();
        let loopback: &[SocketAddr] =
            &[([127, 0, 0, 1], port).into(), (Ipv6Addr::LOCALHOST, port).into()][..=usize::from(has_ipv6)];
        for address in loopback {
            let connection = Connection::open(*address).await.unwrap();
            assert_eq!(ask(connection, "GET /healthz").await.0, 200, "{address}");
        }
    }
}

#[tokio::test]
async fn a_list_of_addresses_may_be_in_the_environment_or_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    // A path in the file is relative to the file.
    fs::write(&config, "listen = [\"127.0.0.1:0\", \"unix:hub.sock\"]").unwrap();
    let hub = Hub::serve_on_its_own(&["--config", config.to_str().unwrap()]).await.unwrap();
    serves_both(hub.address(), &folder.path().join("hub.sock")).await;
    drop(hub);

    let path = folder.path().join("of-the-environment.sock");
    let printed = Command::new(binary().unwrap())
        .args(["serve", "--check"])
        .env("TIDINGS_LISTEN", format!("127.0.0.1:0, unix:{}", path.display()))
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let expected = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]  # environment", path.display());
    assert!(printed.contains(&expected), "{printed}");
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_one_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let unix = format!("unix:{}", path.display());
    let args = ["--listen", unix.as_str(), "--listen", "127.0.0.1:0"];
    let mut killed = Hub::serve_on_its_own(&args).await.unwrap();
    killed.kill().await.unwrap();
    assert!(path.exists(), "a crash leaves the file");

    let hub = Hub::serve_on_its_own(&args).await.unwrap();
    let line = refused(&args);
    assert!(line.contains(&format!("cannot listen on {unix}: another program listens there")), "{line}");
    serves_both(hub.address(), &path).await;

    let file = folder.path().join("notes");
    fs::write(&file, "precious").unwrap();
    let line = refused(&["--listen", &format!("unix:{}", file.display())]);
    assert!(line.contains("not a socket"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn an_address_that_cannot_be_listened_on_is_refused_with_one_line() {
    for (args, part) in [
        (&["--listen", "nonsense"][..], "--listen: `nonsense` is not an address"),
        (&["--listen", "127.0.0.1:0?mode=600"], "only the file of a Unix socket"),
        (&["--listen", "unix:/nowhere/hub.sock"], "its directory does not exist"),
        (&["--listen", "unix:hub.sock?mode=999"], "a mode"),
        (
            &["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"],
            "0.0.0.0:0 can be reached from other machines",
        ),
        (&["--listen", ":0"], ":0 can be reached from other machines"),
        (&["--admin-listen", "0.0.0.0:0"], "--admin-listen: 0.0.0.0:0 can be reached from other machines"),
    ] {
        let line = refused(args);
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

/// Only a Unix socket: there is no port at which the hub could be reached.
#[tokio::test]
async fn a_hub_may_listen_on_a_unix_socket_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let hub = Hub::serve_on_its_own(&["--listen", &format!("unix:{}", path.display())]).await.unwrap();
    assert_eq!(hub.addresses(), [format!("unix:{}", path.display())]);
    let connection = Connection::open_unix(&path).await.unwrap();
    let (status, page) = ask(connection, "GET /\nAccept: text/html").await;
    assert!(status == 200 && page.contains("http://localhost"), "{status} {page}");
}

#[tokio::test]
async fn an_upgrade_hands_over_tcp_and_unix_sockets_with_streams_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let unix = format!("unix:{}", path.display());
    let args = ["--listen", "127.0.0.1:0", "--listen", unix.as_str(), "--admin-listen", "127.0.0.1:0"];
    let mut hub =
        Hub::serve_on_its_own(&[&args[..], &["--listen", "127.0.0.1:0", "--drain-secs", "1"]].concat())
            .await
            .unwrap();
    let before = (hub.addresses(), hub.admin_addresses());
    assert_eq!((before.0.len(), before.1.len()), (3, 1), "{before:?}");
    let connection = Connection::open_unix(&path).await.unwrap();
    let mut over_unix = EventStream::on(connection, "/stream?topic=chat", &[]).await.unwrap();
    let mut over_tcp = EventStream::open(hub.address(), "/stream?topic=chat").await.unwrap();
    for _ in 0..2 {
        hub.upgrade().await.unwrap();
        assert!(path.exists(), "the file belongs to the new process");
        serves_both(hub.address(), &path).await;
        assert_eq!((hub.addresses(), hub.admin_addresses()), before);
    }
    for stream in [&mut over_unix, &mut over_tcp] {
        let end = stream.next().await.unwrap();
        assert!(end.data.contains(r#""kind":"reconnect""#), "{}", end.data);
        assert!(stream.next_or_end().await.unwrap().is_none(), "the stream ends cleanly");
    }
    assert!(hub.first_ended().await.unwrap().success());
    assert!(path.exists(), "the old process leaves the file");
    serves_both(hub.address(), &path).await;
    hub.stop().await.unwrap();
    assert!(!path.exists(), "the last process removes it");
}

/// The configuration may change between two processes.
#[tokio::test]
async fn an_upgrade_opens_new_addresses_and_closes_those_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    let [old, new] = ["old.sock", "new.sock"].map(|name| folder.path().join(name));
    fs::write(&config, "listen = [\"unix:old.sock\", \"127.0.0.1:0\"]\ndrain_secs = 1").unwrap();
    let mut hub = Hub::serve_on_its_own(&["--config", config.to_str().unwrap()]).await.unwrap();
    let address = hub.address();
    fs::write(&config, "listen = [\"127.0.0.1:0\", \"unix:new.sock\"]\ndrain_secs = 1").unwrap();
    hub.upgrade().await.unwrap();
    hub.first_ended().await.unwrap();
    hub.printed(&format!("address={address}, unix:{}", new.display())).await.unwrap();
    serves_both(address, &new).await;
    assert!(!old.exists(), "nothing listens there any more");
}

/// A new process that cannot start must not remove the file of the one that serves.
#[tokio::test]
async fn a_failed_upgrade_leaves_the_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let config = folder.path().join("t.toml");
    let listen = "listen = [\"127.0.0.1:0\", \"unix:hub.sock\"]";
    fs::write(&config, listen).unwrap();
    let mut hub = Hub::serve_on_its_own(&["--config", config.to_str().unwrap()]).await.unwrap();
    // Found out when the sockets have been handed over already.
    fs::write(&config, format!("{listen}\npid_file = \"t.toml\"")).unwrap();
    hub.signal(tidings_testkit::Signal::USR2).unwrap();
    hub.printed("the upgrade failed").await.unwrap();
    serves_both(hub.address(), &path).await;
}

/// The child gets both sockets as systemd passes them, and their names.
fn start_with_two_sockets(tcp: &TcpListener, unix: &UnixListener, names: &str) -> std::process::Child {
    let script = r#"exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@""#;
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(binary().unwrap())
        .arg("serve")
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())))
        .stdout(Stdio::from(OwnedFd::from(unix.try_clone().unwrap())))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn several_inherited_sockets_are_served_and_keep_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = tidings_testkit::listener().unwrap();
    let address = tcp.local_addr().unwrap();
    {
        let _hub = KilledOnDrop(start_with_two_sockets(&tcp, &unix, "web:web"));
        serves_both(address, &path).await;
    }
    assert!(path.exists(), "the file is the supervisor's");

    // One that is named `admin` is for operators.
    let mut hub = KilledOnDrop(start_with_two_sockets(&tcp, &unix, "web:admin"));
    let connection = Connection::open(address).await.unwrap();
    assert_eq!(ask(connection, "GET /metrics").await.0, 404);
    let connection = Connection::open_unix(&path).await.unwrap();
    assert_eq!(ask(connection, "GET /metrics").await.0, 200);
    let mut log = BufReader::new(hub.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = log.find(|line| line.contains("listening ")).expect("the line of a start");
    assert!(line.contains(&format!("admin_address=unix:{}", path.display())), "{line}");
}
