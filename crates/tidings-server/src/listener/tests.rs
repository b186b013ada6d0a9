use super::*;

#[tokio::test]
async fn all_addresses_are_those_of_both_families() {
    let listener = Listener::bind_all(0).expect("a free port");
    let port = listener.local_addr().expect("a TCP socket").port();
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("IPv4");
    if matches!(listener.address(), LocalAddress::All(_)) {
        tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.expect("IPv6");
    }
    assert!(!listener.address().is_local());
}

#[tokio::test]
async fn the_unspecified_addresses_of_both_families_can_share_a_port() {
    let Ok(v6) = Listener::bind((Ipv6Addr::UNSPECIFIED, 0).into()) else { return };
    let port = v6.local_addr().expect("a TCP socket").port();
    let v4 = Listener::bind((Ipv4Addr::UNSPECIFIED, port).into());
    // Another program may have taken the port for IPv4 meanwhile.
    assert!(v4.is_ok() || v4.is_err_and(|error| error.is_in_use()));
    assert_eq!(v6.address().to_string(), format!("[::]:{port}"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_is_wrapped_as_what_it_is() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("hub.sock");
    let unix = Listener::bind_unix(&path, 0o600).expect("bound");
    let tcp = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
    for listener in [&unix, &tcp] {
        let passed = Listener::from_fd(listener.as_fd().try_clone_to_owned().expect("a clone"));
        assert_eq!(passed.expect("it listens").address(), listener.address());
    }
    assert_eq!(unix.address().to_string(), format!("unix:{}", path.display()));
    let (end, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    assert!(Listener::from_fd(end.into()).is_err(), "it does not listen");
}

#[cfg(unix)]
#[tokio::test]
async fn a_path_that_cannot_be_listened_on_is_named_with_the_reason() {
    let long = format!("/tmp/{}", "x".repeat(200));
    for (path, part) in [
        ("/nowhere/hub.sock", "its directory does not exist"),
        (long.as_str(), "too long"),
        ("/", "not a socket"),
    ] {
        let refused = Listener::bind_unix(Path::new(path), 0o600).expect_err(path).to_string();
        assert!(refused.starts_with(&format!("cannot listen on unix:{path}: ")), "{refused}");
        assert!(refused.contains(part), "{refused}");
    }
}
