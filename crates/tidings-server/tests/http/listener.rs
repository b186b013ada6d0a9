//! The listening socket: bound to an address, or inherited from the parent process.

#![cfg(unix)]

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tidings_server::{ConnectionSettings, Drain, Listener, serve};
use tokio::net::TcpStream;

use crate::support::{Client, Server};

const GET_LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn a_bind_error_is_one_line_with_the_address_and_the_remedy() {
    let held = std::net::TcpListener::bind(loopback()).expect("a free port");
    let taken = held.local_addr().expect("an address");
    let error = Listener::bind(taken).expect_err("it is taken").to_string();
    assert_eq!(
        error,
        format!("cannot listen on {taken}: another program listens there; stop it or choose another port")
    );
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = Listener::bind(foreign).expect_err("no local address").to_string();
    assert!(
        error.starts_with("cannot listen on 192.0.2.1:0: this machine does not have that address"),
        "{error}"
    );
}

/// Starts this test binary again, as a server on an inherited socket.
fn start_child(socket: &std::net::TcpListener) -> Child {
    let socket: OwnedFd = socket.try_clone().expect("a descriptor").into();
    // The shell moves the socket to descriptor 3, as the protocol requires.
    Command::new("sh")
        .args(["-c", r#"exec "$0" "$@" 3<&0 0</dev/null"#])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--exact", "listener::serve_on_an_inherited_socket", "--ignored", "--nocapture"])
        .env("LISTEN_FDS", "1")
        .env_remove("LISTEN_PID")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

#[tokio::test]
#[ignore = "the child of the test below: serves until it is killed"]
async fn serve_on_an_inherited_socket() {
    let (name, listener) =
        Listener::inherited().expect("a listening socket").pop().expect("LISTEN_FDS is set");
    assert_eq!(name, "");
    assert!(Listener::inherited().expect("no error").is_empty(), "it is taken once");
    let _server = Server::start_on(listener, ConnectionSettings::default());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_restart_behind_an_inherited_socket_refuses_no_connection() {
    let socket = std::net::TcpListener::bind(loopback()).expect("a free port");
    let address = socket.local_addr().expect("an address");
    for _ in 0..2 {
        // No server runs at this moment, and yet the connection is accepted.
        let mut client = Client(TcpStream::connect(address).await.expect("a connection"));
        client.send(GET_LAST).await;
        let mut child = start_child(&socket);
        let answer = client.rest().await;
        child.kill().expect("the child runs");
        child.wait().expect("the child ends");
        assert!(answer.ends_with("hello"), "{answer}");
    }
}

/// The next process accepts from the same socket, whose file clients find.
#[tokio::test]
async fn a_server_that_is_succeeded_leaves_the_file_of_its_unix_socket() {
    let folder = tempfile::tempdir().expect("a directory");
    for (drain, is_left) in [(Drain::Succeeded(Duration::ZERO), true), (Drain::AtOnce, false)] {
        let path = folder.path().join("hub.sock");
        let listener = Listener::bind_unix(&path, 0o600).expect("it is bound");
        let shutdown = async move { drain };
        let service = tower::service_fn(async |_| Ok(http::Response::new(axum::body::Body::empty())));
        serve(vec![listener], service, ConnectionSettings::default(), Arc::default(), shutdown).await;
        assert_eq!(path.exists(), is_left, "{drain:?}");
    }
}

#[tokio::test]
async fn without_the_variables_nothing_is_inherited() {
    assert!(Listener::inherited().expect("no error").is_empty());
}
