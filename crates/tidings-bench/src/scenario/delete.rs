//! One client deletes topics all the time. The others, which publish, receive and subscribe, must
//! not wait longer for it.
//!
//! A deletion removes something only if there is something, so the client publishes an event and
//! deletes its topic, again and again. A client that publishes twice instead costs the machine
//! nearly the same: what deleting adds to that is the hub's doing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Bench, load, quantiles};
use crate::{
    BenchError, Step,
    engine::Manner,
    histogram::Histogram,
    mark::{MARK_BYTES, Mark},
    reply::{HEADERS_BYTES_MAX, Reply, excerpt},
    report::Others,
    target::Requests,
};

/// The pause between two streams that are opened to see how long that takes.
const OPENING_PAUSE: Duration = Duration::from_millis(5);
/// How long a client of this scenario waits for bytes.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const TOPICS: u32 = 16;

/// What one client does as fast as it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    None,
    Publishing,
    Deleting,
}

impl Bench<'_> {
    pub(super) fn delete(&mut self) -> Result<Vec<Step>, BenchError> {
        Ok(vec![
            self.beside("undisturbed", Disturbance::None)?,
            self.beside("while one client publishes", Disturbance::Publishing)?,
            self.beside("while one client publishes and deletes", Disturbance::Deleting)?,
        ])
    }

    fn beside(&mut self, name: &str, disturbance: Disturbance) -> Result<Step, BenchError> {
        let shape = self.shape;
        let others = Requests::new(&self.plan.target, "bench-others".to_owned())?;
        if others.delete(0).is_none() {
            let name = &self.plan.target.name;
            return Err(BenchError::plan(format!("delete: {name} cannot delete topics")));
        }
        let mut engine = self.engine(shape)?;
        let connecting = self.people(&mut engine, shape, Manner::default())?;
        let ended = AtomicBool::new(false);
        let (traffic, opening, requests) = thread::scope(|scope| {
            let opening = scope.spawn(|| open_streams(&others, &ended));
            let requests = scope.spawn(|| disturb(&others, disturbance, &ended));
            let traffic = self.publish(&mut engine, load(shape));
            ended.store(true, Ordering::Relaxed);
            (traffic, opening.join(), requests.join())
        });
        let opening = opening.expect("no code of the thread panics")?;
        let requests = requests.expect("no code of the thread panics")?;
        let step = self.step(name, shape, &engine);
        engine.hang_up();
        let others = Some(Others { requests, opening: quantiles(&opening) });
        Ok(Step { connecting: Some(connecting), traffic: Some(traffic?), others, ..step })
    }
}

/// Opens streams one after the other, and closes each once its response headers have arrived.
fn open_streams(requests: &Requests, ended: &AtomicBool) -> Result<Histogram, BenchError> {
    let mut times = Histogram::default();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut client = Client::connect(requests.subscribe_address)?;
        client.send(&requests.subscribe(0, 0, None, 0))?;
        client.receive_headers()?;
        times.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        drop(client);
        thread::sleep(OPENING_PAUSE);
    }
    Ok(times)
}

/// Returns the number of requests.
fn disturb(requests: &Requests, disturbance: Disturbance, ended: &AtomicBool) -> Result<u64, BenchError> {
    if disturbance == Disturbance::None {
        return Ok(0);
    }
    let mut client = Client::connect(requests.publish_address)?;
    let mark = Mark { run: 0, publisher: 0, topic: 0, sequence: 0, due_nanos: 0 };
    let (mut payload, mut body, mut publish) = (Vec::new(), Vec::new(), Vec::new());
    mark.write_payload(MARK_BYTES, &mut payload);
    let mut count = 0;
    while !ended.load(Ordering::Relaxed) {
        let topic = u32::try_from(count / 2 % u64::from(TOPICS)).expect("it is less than TOPICS");
        requests.publish(topic, &payload, false, &mut body, &mut publish);
        client.request(&publish)?;
        match requests.delete(topic).filter(|_| disturbance == Disturbance::Deleting) {
            Some(delete) => client.request(&delete)?,
            None => client.request(&publish)?,
        }
        count += 2;
    }
    Ok(count)
}

/// A connection whose owner waits for each answer.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            Ok(stream)
        });
        let stream =
            stream.map_err(|error| BenchError::hub(format!("no connection to {address}: {error}")))?;
        Ok(Self { stream, received: Vec::new() })
    }

    fn request(&mut self, request: &[u8]) -> Result<(), BenchError> {
        self.send(request)?;
        let reply = loop {
            self.receive()?;
            if let Some(reply) = Reply::parse(&self.received)? {
                break reply;
            }
        };
        if (200..300).contains(&reply.status) && !reply.close {
            return Ok(());
        }
        let body = excerpt(&self.received[reply.head..]);
        Err(BenchError::hub(format!("a request was answered {}: {body}", reply.status)))
    }

    fn receive_headers(&mut self) -> Result<(), BenchError> {
        while !self.received.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            self.receive()?;
            if self.received.len() > HEADERS_BYTES_MAX {
                return Err(BenchError::hub("the hub answered without HTTP"));
            }
        }
        Ok(())
    }

    fn send(&mut self, request: &[u8]) -> Result<(), BenchError> {
        self.received.clear();
        self.stream.write_all(request).map_err(|error| cut(&error))
    }

    fn receive(&mut self) -> Result<(), BenchError> {
        let mut buffer = [0; 4 << 10];
        let length = self.stream.read(&mut buffer).map_err(|error| cut(&error))?;
        if length == 0 {
            return Err(BenchError::hub("the hub closed a connection before it answered"));
        }
        self.received.extend_from_slice(&buffer[..length]);
        Ok(())
    }
}

fn cut(error: &std::io::Error) -> BenchError {
    BenchError::hub(format!("the hub cut a request: {error}"))
}
