//! A session with the client of rustls at the other end of a socket that holds as much as the test
//! wants.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tidings_testkit::Certificate;

use super::{
    CertificateError, CertificateFiles, Certificates, ChallengeCertificate, Tls,
    config::Choice,
    session::{RECORD_BYTES_MAX, Session},
};
use crate::http1::PlainHttp;

/// The end of a socket that the session has.
struct Socket {
    arriving: VecDeque<u8>,
    has_ended: bool,
    sent: Vec<u8>,
    /// Bytes that fit before the socket is full.
    room: usize,
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.arriving.is_empty() && !self.has_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.arriving.read(into)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.room.min(bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.sent.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A certificate for these names, signed by itself.
fn make_certificate(folder: &Path, name: &str, names: &[&str]) -> CertificateFiles {
    let Certificate { certificate, key } = Certificate::create(folder, name, names).expect("it is written");
    CertificateFiles { certificate, key }
}

/// Server and client of one connection.
struct Pair {
    session: Session,
    socket: Socket,
    client: ClientConnection,
    received: Vec<u8>,
    tls: Tls,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let files = make_certificate(folder.path(), "hub", &["hub.test"]);
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
        roots.add(certificate).expect("it is a root");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "hub.test".try_into().expect("a name");
        let tls = Tls::new(Certificates::read(&[files]).expect("read"), true);
        Self {
            session: Session::new(tls.accept()),
            socket: Socket {
                arriving: VecDeque::new(),
                has_ended: false,
                sent: Vec::new(),
                room: usize::MAX,
            },
            client: ClientConnection::new(Arc::new(config), name).expect("a client"),
            received: Vec::new(),
            tls,
            _folder: folder,
        }
    }

    fn connected(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        while pair.client.is_handshaking() {
            assert_eq!(pair.server_read().expect("no failure"), None);
            pair.client_read();
        }
        assert_eq!(pair.server_read().expect("no failure"), None);
        pair.client_read();
        pair
    }

    /// What the client sends arrives, and the session reads it; none while nothing has come.
    fn server_read(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.client.wants_write() {
            self.client.write_tls(&mut self.socket.arriving).expect("there is room");
        }
        let mut into = [0; 100];
        match self.session.read(&mut self.socket, &mut into) {
            Ok(count) => Ok(Some(into[..count].to_vec())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The client receives what was sent.
    fn client_read(&mut self) {
        let sent = std::mem::take(&mut self.socket.sent);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("bytes");
            self.client.process_new_packets().expect("no failure");
            let _ = self.client.reader().read_to_end(&mut self.received);
        }
    }

    fn client_write(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).expect("it is buffered");
    }

    fn server_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.write(&mut self.socket, bytes)
    }
}

#[test]
fn data_arrives_in_both_directions_with_each_version() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client_write(b"GET /");
        assert_eq!(pair.server_read().expect("no failure"), Some(b"GET /".to_vec()));
        assert_eq!(pair.server_write(b"an event").expect("it fits"), 8);
        pair.client_read();
        assert_eq!(pair.received, b"an event");
        assert_eq!(pair.session.held_bytes(), 0, "an idle session has no buffer");
    }
}

#[test]
fn a_handshake_that_arrives_byte_by_byte_succeeds() {
    let mut pair = Pair::new(&TLS13);
    while pair.client.is_handshaking() {
        let mut sent = Vec::new();
        pair.client.write_tls(&mut sent).expect("bytes");
        for byte in sent {
            pair.socket.arriving.push_back(byte);
            assert_eq!(pair.server_read().expect("no failure"), None);
            assert!(pair.session.has_begun());
        }
        pair.client_read();
    }
}

#[test]
fn at_most_one_record_waits_for_a_socket_that_is_full() {
    let mut pair = Pair::connected(&TLS13);
    let event: Vec<u8> = (0..1 << 20).map(|number: u32| number.to_le_bytes()[0]).collect();
    let mut rest = &event[..];
    for room in [0, 1, 4, 5, 1_000, 16_000, 17_000, 60_000, 3].into_iter().cycle() {
        pair.socket.room = room;
        match pair.server_write(rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(pair.session.unsent_bytes() <= RECORD_BYTES_MAX + 64, "{}", pair.session.unsent_bytes());
        pair.client_read();
        if rest.is_empty() {
            break;
        }
    }
    pair.socket.room = usize::MAX;
    pair.session.flush(&mut pair.socket).expect("it fits");
    pair.client_read();
    assert!(pair.received == event);
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn a_client_that_ends_its_side_still_receives() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client_write(b"GET /");
        pair.client.send_close_notify();
        assert_eq!(pair.server_read().expect("no failure"), Some(b"GET /".to_vec()));
        assert_eq!(pair.server_read().expect("no failure"), Some(Vec::new()), "the end");
        assert_eq!(pair.server_write(b"the rest").expect("it fits"), 8);
        pair.session.end();
        pair.session.end();
        pair.session.flush(&mut pair.socket).expect("it fits");
        pair.client_read();
        assert_eq!(pair.received, b"the rest");
        assert!(pair.server_write(b"more").is_err(), "nothing is written after the end");
    }
}

#[test]
fn an_end_without_an_alert_is_an_end() {
    let mut pair = Pair::connected(&TLS13);
    pair.socket.has_ended = true;
    assert_eq!(pair.server_read().expect("no failure"), Some(Vec::new()));
}

/// RFC 8446, 4.6.3.
#[test]
fn a_key_update_is_answered_with_the_next_record() {
    let mut pair = Pair::connected(&TLS13);
    for number in 0..10_u8 {
        pair.client.refresh_traffic_keys().expect("it is connected");
        pair.client_write(&[number]);
        assert_eq!(pair.server_read().expect("no failure"), Some(vec![number]));
        pair.server_write(&[number]).expect("it fits");
        pair.client_read();
    }
    assert_eq!(pair.received, (0..10).collect::<Vec<_>>());
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn damaged_records_end_the_connection_with_an_alert() {
    let mut pair = Pair::connected(&TLS13);
    pair.socket.arriving.extend([23, 3, 3, 0, 32]);
    pair.socket.arriving.extend([7; 32]);
    assert_eq!(pair.server_read().expect_err("garbage").kind(), io::ErrorKind::InvalidData);
    let sent = std::mem::take(&mut pair.socket.sent);
    pair.client.read_tls(&mut &sent[..]).expect("bytes");
    let alert = pair.client.process_new_packets().expect_err("an alert");
    assert!(matches!(alert, rustls::Error::AlertReceived(_)), "{alert:?}");
}

#[test]
fn plain_http_is_recognised_and_other_bytes_are_not_taken_for_it() {
    for (bytes, is_http) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], true), (&[0; 9], false), (b"{\"a\": 1}", false)]
    {
        let mut pair = Pair::new(&TLS13);
        pair.socket.arriving.extend(bytes);
        let mut into = [0; 10];
        let error = pair.session.read(&mut pair.socket, &mut into).expect_err("no TLS");
        assert_eq!(PlainHttp::is_reason_of(&error), is_http, "{error}");
    }
}

#[test]
fn endless_handshake_messages_are_not_collected() {
    let mut pair = Pair::new(&TLS13);
    // A hello of 16 MiB, in records that are complete.
    let mut message = vec![1, 0xff, 0xff, 0xff];
    message.resize(RECORD_BYTES_MAX, 0);
    let error = (0..16).find_map(|_| {
        pair.socket.arriving.extend([22, 3, 1, 0x40, 0]);
        pair.socket.arriving.extend(&message);
        pair.server_read().err()
    });
    assert!(error.is_some());
    assert!(pair.session.held_bytes() < 256 * 1024);
}

/// The task of the connection ends, so the shard has the socket and encrypts.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_subscriber_lives_in_a_shard_and_needs_no_task() {
    use crate::connection::{
        ConnectionMetrics, ConnectionSettings, driver::Driver, peer::Peer, permits::ConnectionPermits,
        stage::Stage,
    };
    use tidings::{Hub, NewEvent};

    let Pair { client, tls, _folder, .. } = Pair::new(&TLS13);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (first_line, read_line) = std::sync::mpsc::channel();
    let receiving = std::thread::spawn(move || {
        let socket = std::net::TcpStream::connect(address).expect("it listens");
        let mut stream = rustls::StreamOwned::new(client, socket);
        stream.write_all(b"GET /stream?topic=chat HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains("data: hello\n") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).expect("a stream");
            received.extend_from_slice(&bytes[..count]);
            let _ = first_line.send(());
        }
        String::from_utf8(received).expect("text")
    });
    let (socket, peer) = listener.accept().await.expect("a connection");

    let hub = Hub::in_memory().await;
    let metrics = Arc::<ConnectionMetrics>::default();
    let permits = ConnectionPermits::new(&metrics);
    let service = crate::router(hub.clone(), None, crate::Settings::default());
    let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
    let (_stop, stopping) = tokio::sync::watch::channel(Stage::Serving);
    let stream = super::Stream::new(socket, Some(&tls));
    let connection = driver.drive(stream, Peer::of(peer), permits.take(), stopping);
    tokio::time::timeout(std::time::Duration::from_secs(60), connection).await.expect("the task ends");

    let wait = move || read_line.recv().expect("the client receives");
    tokio::task::spawn_blocking(wait).await.expect("no panic");
    assert_eq!(permits.taken(), 1);
    hub.publish(NewEvent::new("chat", "hello")).await.expect("published");
    let received =
        tokio::task::spawn_blocking(|| receiving.join()).await.expect("no panic").expect("received");
    assert!(received.starts_with("HTTP/1.1 200 ") && received.contains("retry: "), "{received}");
    permits.all_returned().await;
}

#[test]
fn a_certificate_is_chosen_by_the_name_and_the_first_one_is_for_all_others() {
    let folder = tempfile::tempdir().expect("a directory");
    let make = |name: &str, names: &[&str]| make_certificate(folder.path(), name, names);
    let read = |files: &[CertificateFiles]| Certificates::read(files).expect("read");
    let first = read(&[make("first", &["a.test"]), make("second", &["B.test", "*.c.test"])]);
    let second = read(&[make("third", &["a.test", "d.test"])]);
    let all = [&first.all[0], &first.all[1], &second.all[0]];
    let mut choice = Choice { configured: first.clone(), obtained: second.clone(), ..Choice::default() };
    for (host, number) in [
        (None, 0),
        (Some("a.test"), 0),
        (Some("b.test"), 1),
        (Some("B.TEST"), 1),
        (Some("x.c.test"), 1),
        (Some("c.test"), 0),
        (Some("x.y.c.test"), 0),
        (Some("d.test"), 2),
        (Some("other.test"), 0),
    ] {
        assert_eq!(choice.of_host(host)[0].cert, all[number].cert, "{host:?}");
    }
    choice.configured = Certificates::default();
    for host in [None, Some("d.test"), Some("other.test")] {
        assert_eq!(choice.of_host(host)[0].cert, all[2].cert, "{host:?}");
    }
    choice.obtained = Certificates::default();
    assert!(choice.of_host(Some("a.test")).is_empty());
}

/// A client that trusts this certificate and offers these protocols, and a new connection to `tls`.
fn pair_offering(tls: &Tls, trusted: &Path, name: &'static str, protocols: &[&[u8]]) -> Pair {
    let mut pair = Pair::new(&TLS13);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).expect("a certificate")).expect("it is a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    pair.session = Session::new(tls.accept());
    pair.client =
        ClientConnection::new(Arc::new(config), name.try_into().expect("a name")).expect("a client");
    pair
}

/// Whether the handshake succeeds, and the protocol that was agreed on.
fn negotiated(pair: &mut Pair) -> Result<Option<Vec<u8>>, io::Error> {
    while pair.client.is_handshaking() {
        pair.server_read()?;
        pair.client_read();
    }
    Ok(pair.client.alpn_protocol().map(<[u8]>::to_vec))
}

/// RFC 8737, 3.
#[test]
fn a_validation_sees_the_certificate_of_its_challenge_while_one_is_pending() {
    let folder = tempfile::tempdir().expect("a directory");
    let usual = make_certificate(folder.path(), "usual", &["hub.test"]);
    let proof = make_certificate(folder.path(), "proof", &["hub.test"]);
    let tls = Tls::new(Certificates::read(std::slice::from_ref(&usual)).expect("read"), true);
    let connect = |trusted: &CertificateFiles, name, protocols: &[&[u8]]| {
        let mut pair = pair_offering(&tls, &trusted.certificate, name, protocols);
        let agreed = negotiated(&mut pair);
        (agreed.map_err(|error| error.to_string()), pair)
    };
    let acme: &[&[u8]] = &[b"acme-tls/1"];
    assert!(connect(&proof, "hub.test", acme).0.is_err(), "none is pending");

    let der = CertificateDer::from_pem_file(&proof.certificate).expect("a certificate").to_vec();
    let key = PrivatePkcs8KeyDer::from_pem_file(&proof.key).expect("a key").secret_pkcs8_der().to_vec();
    tls.answer_challenges(vec![ChallengeCertificate::new("Hub.test", der.clone(), key).expect("it fits")]);
    let (agreed, mut pair) = connect(&proof, "hub.test", acme);
    assert_eq!(agreed, Ok(Some(b"acme-tls/1".to_vec())));
    pair.client_write(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(pair.server_read().expect("no failure"), Some(Vec::new()), "no request is read");
    assert!(connect(&proof, "other.test", acme).0.is_err(), "another name");
    let others: [&[&[u8]]; 3] = [&[], &[b"http/1.1"], &[b"acme-tls/1", b"h2"]];
    for protocols in others {
        let (agreed, _) = connect(&usual, "hub.test", protocols);
        assert_eq!(agreed, Ok(protocols.last().map(|protocol| protocol.to_vec())));
    }

    tls.answer_challenges(Vec::new());
    assert!(connect(&proof, "hub.test", acme).0.is_err(), "it is over");
    assert!(connect(&usual, "hub.test", &[b"h2"]).0.is_ok());
    assert!(ChallengeCertificate::new("hub.test", der, b"no key".to_vec()).is_err());
}

#[test]
fn without_a_certificate_a_handshake_ends_with_an_alert_until_one_is_obtained() {
    let folder = tempfile::tempdir().expect("a directory");
    let files = make_certificate(folder.path(), "hub", &["hub.test"]);
    let tls = Tls::new(Certificates::default(), true);
    let mut pair = pair_offering(&tls, &files.certificate, "hub.test", &[]);
    negotiated(&mut pair).expect_err("there is no certificate");
    let sent = std::mem::take(&mut pair.socket.sent);
    pair.client.read_tls(&mut &sent[..]).expect("bytes");
    let alert = pair.client.process_new_packets().expect_err("an alert");
    assert_eq!(alert, rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied));

    let read = || Certificates::read(std::slice::from_ref(&files)).expect("read");
    assert!(tls.replace_obtained(read()));
    assert!(!tls.replace_obtained(read()), "it is the same");
    let mut pair = pair_offering(&tls, &files.certificate, "hub.test", &[]);
    assert_eq!(negotiated(&mut pair).expect("a handshake"), None);
}

#[test]
fn a_certificate_and_its_key_may_share_a_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let files = make_certificate(folder.path(), "hub", &["hub.test"]);
    let both = folder.path().join("both.pem");
    let [certificate, key] = [&files.certificate, &files.key].map(|file| fs::read(file).expect("read"));
    fs::write(&both, [key, certificate].concat()).expect("written");
    let together = CertificateFiles { certificate: both.clone(), key: both };
    let read = |files| Certificates::read(&[files]).expect("read").all[0].cert.clone();
    assert_eq!(read(together), read(files));
}

#[test]
fn certificates_are_replaced_only_if_they_differ() {
    let folder = tempfile::tempdir().expect("a directory");
    let files = [make_certificate(folder.path(), "hub", &["hub.test"])];
    let read = || Certificates::read(&files).expect("read");
    let tls = Tls::new(read(), false);
    assert!(!tls.replace(read()));
    make_certificate(folder.path(), "hub", &["hub.test"]);
    assert!(tls.replace(read()));
}

type Expected = fn(&CertificateError) -> bool;

#[test]
fn what_is_wrong_with_a_file_is_said_in_one_line() {
    let folder = tempfile::tempdir().expect("a directory");
    let good = make_certificate(folder.path(), "good", &["a.test"]);
    let other = make_certificate(folder.path(), "other", &["a.test"]);
    let text = folder.path().join("text");
    fs::write(&text, "hello").expect("written");
    let encrypted = folder.path().join("encrypted");
    fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .expect("written");
    let damaged = folder.path().join("damaged");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    let missing = folder.path().join("missing");
    let cases: [(&Path, &Path, Expected); 8] = [
        (&missing, &good.key, |error| matches!(error, CertificateError::Unreadable { .. })),
        (&good.certificate, &missing, |error| matches!(error, CertificateError::Unreadable { .. })),
        (&text, &good.key, |error| matches!(error, CertificateError::NoCertificate { .. })),
        (&good.key, &good.key, |error| matches!(error, CertificateError::NoCertificate { .. })),
        (&damaged, &good.key, |error| matches!(error, CertificateError::BadCertificate { .. })),
        (&good.certificate, &good.certificate, |error| matches!(error, CertificateError::NoKey { .. })),
        (&good.certificate, &encrypted, |error| matches!(error, CertificateError::EncryptedKey { .. })),
        (&good.certificate, &other.key, |error| matches!(error, CertificateError::Mismatch { .. })),
    ];
    for (certificate, key, is_expected) in cases {
        let files = CertificateFiles { certificate: certificate.to_owned(), key: key.to_owned() };
        let error = Certificates::read(&[files]).expect_err("unusable");
        assert!(is_expected(&error), "{error:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
