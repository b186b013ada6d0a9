//! One TLS connection: what arrives is decrypted, what is written is encrypted into records. The
//! socket is passed to each call, as anything that is read and written without waiting.
//!
//! Invariants:
//! - Between two calls, a session holds bytes only of an incomplete record, of a record that did not
//!   fit into the socket, and of what was decrypted and is not read yet. An idle one holds none.
//! - At most one record of application data waits to be sent.
//! - Everything that the protocol itself has to send (handshake, tickets, key updates, alerts) keeps
//!   its order with application data.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    mem,
};

use rustls::{
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};

use super::challenges::ACME_TLS;
use crate::http1::PlainHttp;

/// RFC 8446, 5.1: most bytes of application data in one record.
pub(super) const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Most bytes that a record is longer than its data (RFC 5246, 6.2.3).
const RECORD_OVERHEAD_MAX: usize = 5 + 2048;
/// Most bytes that arrive before they make a whole message: a handshake message may span records.
/// The largest that a client needs here is its hello.
const INCOMPLETE_BYTES_MAX: usize = 64 * 1024;
/// RFC 8446, 5.1: the type of a record with which a connection begins.
const HANDSHAKE: u8 = 22;

thread_local! {
    /// Where records are encrypted, and where they arrive, for all sessions of the thread.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ARRIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; RECORD_BYTES_MAX + RECORD_OVERHEAD_MAX]);
}

/// See the module's documentation.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a message of several records.
    incomplete: Vec<u8>,
    unsent: Unsent,
    /// Decrypted and not yet read, from `read` on.
    opened: Vec<u8>,
    read: usize,
    /// How many bytes may still arrive.
    input_left: u64,
    has_begun: bool,
    input_ended: bool,
    /// Nothing more is encrypted: the end was reported, or an error.
    has_ended: bool,
}

/// Encrypted bytes that did not fit into the socket, from `sent` on.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Session {
    pub(super) fn new(tls: UnbufferedServerConnection) -> Self {
        Self {
            tls,
            incomplete: Vec::new(),
            unsent: Unsent::default(),
            opened: Vec::new(),
            read: 0,
            input_left: u64::MAX,
            has_begun: false,
            input_ended: false,
            has_ended: false,
        }
    }

    /// From now on, more encrypted bytes than these are an error.
    #[cfg(target_os = "linux")]
    pub(super) fn limit_input(&mut self, bytes_max: u64) {
        self.input_left = bytes_max;
    }

    /// Bytes of the client have arrived.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Memory of buffers.
    pub(super) fn held_bytes(&self) -> usize {
        self.incomplete.capacity() + self.unsent.bytes.capacity() + self.opened.capacity()
    }

    /// How many bytes are encrypted and wait to be sent.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.bytes.len() - self.unsent.sent
    }

    /// Whether there is something to read without the socket: data, or the end.
    pub(super) fn has_input(&self) -> bool {
        self.unread_bytes() > 0 || self.input_ended
    }

    /// How many bytes are decrypted and wait to be read.
    fn unread_bytes(&self) -> usize {
        self.opened.len() - self.read
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.unsent_bytes() > 0 {
            match socket.write(&self.unsent.bytes[self.unsent.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.unsent.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Unsent::default();
        Ok(())
    }

    /// Encrypts these bytes and sends them, record by record, until one does not fit. Returns how many
    /// were encrypted: no less than one record, unless the one before waits still, which is an error
    /// of the kind `WouldBlock`.
    pub(super) fn write(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.has_ended {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut taken = 0;
        for data in bytes.chunks(RECORD_BYTES_MAX) {
            let is_sent = SEALED.with_borrow_mut(|sealed| {
                sealed.clear();
                self.encrypt(Content::Data(data), sealed)?;
                self.send_or_keep(socket, sealed)
            });
            taken += data.len();
            match is_sent {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Whether all of these encrypted bytes were sent. What was not waits.
    fn send_or_keep(&mut self, socket: &mut impl Write, sealed: &[u8]) -> io::Result<bool> {
        let mut rest = sealed;
        while !rest.is_empty() {
            match socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = Unsent { bytes: rest.to_vec(), sent: 0 };
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reports that nothing more is written (RFC 8446, 6.1), once.
    pub(super) fn end(&mut self) {
        if mem::replace(&mut self.has_ended, true) {
            return;
        }
        let mut alert = Vec::new();
        let queued = self.encrypt(Content::End, &mut alert);
        // A handshake that is not complete has no records to end.
        if queued.is_ok() {
            self.unsent.bytes.extend_from_slice(&alert);
        }
    }

    /// Appends a record with this content, and what has to go before it.
    fn encrypt(&mut self, content: Content<'_>, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incomplete);
            let is_written = match state.map_err(invalid)? {
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, into);
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let begin = into.len();
                    let written = match content.encrypt(&mut traffic, &mut []) {
                        Err(EncryptError::InsufficientSize(size)) => {
                            into.resize(begin + size.required_size, 0);
                            content.encrypt(&mut traffic, &mut into[begin..])
                        }
                        done => done,
                    };
                    let written = written.map_err(invalid)?;
                    into.truncate(begin + written);
                    true
                }
                ConnectionState::PeerClosed => {
                    self.input_ended = true;
                    false
                }
                _ => return Err(io::ErrorKind::NotConnected.into()),
            };
            self.incomplete.drain(..discard);
            if is_written {
                return Ok(());
            }
        }
    }

    /// Reads what the client sends: the handshake and what belongs to the protocol, until there is
    /// data; 0 is the end.
    pub(super) fn read(&mut self, socket: &mut (impl Read + Write), into: &mut [u8]) -> io::Result<usize> {
        loop {
            // A client that has to read first sends nothing before.
            if self.unsent_bytes() > 0 {
                unless_full(self.flush(socket))?;
            }
            if self.unread_bytes() > 0 {
                return Ok(self.take_opened(into));
            }
            if self.input_ended {
                return Ok(0);
            }
            let accepted = ARRIVED.with_borrow_mut(|arrived| {
                let count = socket.read(arrived)?;
                if count == 0 {
                    // RFC 9112, 9.8: whether a message is complete does not depend on how the
                    // connection ends, so an end without an alert is one as well.
                    self.input_ended = true;
                    return Ok(());
                }
                let too_much = || io::Error::new(io::ErrorKind::InvalidData, "a subscriber sends too much");
                self.input_left = self.input_left.checked_sub(count as u64).ok_or_else(too_much)?;
                self.accept(&mut arrived[..count])
            });
            if let Err(error) = accepted {
                // The client learns why from an alert.
                let _ = self.flush(socket);
                return Err(error);
            }
        }
    }

    fn take_opened(&mut self, into: &mut [u8]) -> usize {
        let unread = &self.opened[self.read..];
        let count = unread.len().min(into.len());
        into[..count].copy_from_slice(&unread[..count]);
        self.read += count;
        if self.read == self.opened.len() {
            self.opened = Vec::new();
            self.read = 0;
        }
        count
    }

    /// Processes bytes that have arrived.
    fn accept(&mut self, arrived: &mut [u8]) -> io::Result<()> {
        if !mem::replace(&mut self.has_begun, true) && is_http(arrived) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp));
        }
        if self.incomplete.is_empty() {
            let used = self.process(arrived)?;
            self.incomplete.extend_from_slice(&arrived[used..]);
        } else {
            self.incomplete.extend_from_slice(arrived);
            let mut bytes = mem::take(&mut self.incomplete);
            let used = self.process(&mut bytes)?;
            self.incomplete = if used == bytes.len() { Vec::new() } else { bytes.split_off(used) };
        }
        // RFC 8737, 3: nothing follows the handshake.
        if self.tls.alpn_protocol() == Some(ACME_TLS) && !self.tls.is_handshaking() {
            self.opened = Vec::new();
            self.input_ended = true;
        }
        if self.incomplete.len() > INCOMPLETE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of TLS is too long"));
        }
        Ok(())
    }

    /// How many of these bytes are done with.
    fn process(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut bytes[used..]);
            let mut is_done = false;
            let mut error = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                self.opened.extend_from_slice(record.payload);
                            }
                            Err(failure) => error = Some(failure),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent.bytes),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.input_ended = true,
                Ok(_) => is_done = true,
                Err(failure) => error = Some(failure),
            }
            used += discard;
            if let Some(error) = error {
                self.take_alert(&mut bytes[used..]);
                return Err(invalid(error));
            }
            if is_done {
                return Ok(used);
            }
        }
    }

    /// Takes the alert that reports an error to the client. The session is of no use after that.
    fn take_alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process_tls_records(rest).state {
            encode(data, &mut self.unsent.bytes);
        }
        self.has_ended = true;
        self.input_ended = true;
    }
}

/// What a record has.
#[derive(Clone, Copy)]
enum Content<'a> {
    /// Application data.
    Data(&'a [u8]),
    /// The alert that nothing follows.
    End,
}

impl Content<'_> {
    fn encrypt(
        self,
        traffic: &mut WriteTraffic<'_, ServerConnectionData>,
        into: &mut [u8],
    ) -> Result<usize, EncryptError> {
        match self {
            Self::Data(data) => traffic.encrypt(data, into),
            Self::End => traffic.queue_close_notify(into),
        }
    }
}

/// RFC 9112, 3: a request begins with its method, in practice in capital letters.
fn is_http(bytes: &[u8]) -> bool {
    bytes[0] != HANDSHAKE && bytes[0].is_ascii_uppercase()
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, into: &mut Vec<u8>) {
    let begin = into.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        into.resize(begin + size.required_size, 0);
        let written = data.encode(&mut into[begin..]).expect("it is as large as required");
        into.truncate(begin + written);
    }
}

/// A socket that is full is no reason not to read.
fn unless_full(flushed: io::Result<()>) -> io::Result<()> {
    match flushed {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        flushed => flushed,
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
