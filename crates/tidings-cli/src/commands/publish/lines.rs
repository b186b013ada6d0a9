//! Publishing standard input line by line, as it arrives.
//!
//! All complete lines that one read returns are published before the next read, in as few requests
//! as their limits allow. So a line never waits for another one, a fast input is published in
//! batches, and an input that is faster than the hub waits in its pipe.
//!
//! A request is all or nothing, so that one that is refused has published nothing: its lines are
//! published one by one up to the one that is refused. What is published before an error therefore
//! does not depend on how lines were batched.

use std::io;

use serde::Deserialize;
use tidings_client::{Batch, Client, ClientError, Published};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

use super::super::hub::HubArgs;
use crate::failure::Failure;

/// Maximum size of an event that is read from standard input. Hubs accept 1 MiB by default.
pub(super) const INPUT_BYTES_MAX: usize = 64 << 20;
/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;
/// Most lines of a request. Hubs accept 1,000 by default.
const BATCH_LINES_MAX: usize = 500;
/// A request of this many bytes takes no further line. Hubs accept 1 MiB by default.
const BATCH_BYTES: usize = 64 << 10;

/// What a line is.
#[derive(Clone, Copy, Debug)]
pub(super) enum LineFormat<'a> {
    /// The data of an event on this topic, with these options.
    Text { topic: &'a str, options: &'a tidings_client::Publish, is_ephemeral: bool, keep_empty: bool },
    /// An event as `POST /topics` takes it.
    Json,
}

impl LineFormat<'_> {
    /// Whether this line is no event.
    fn skips(self, line: &str) -> bool {
        match self {
            Self::Text { keep_empty, .. } => line.is_empty() && !keep_empty,
            Self::Json => line.trim_ascii().is_empty(),
        }
    }

    fn is_ephemeral(self, line: &str) -> bool {
        match self {
            Self::Text { is_ephemeral, .. } => is_ephemeral,
            Self::Json => is_ephemeral_json(line),
        }
    }
}

/// A line that is to be published, and its number from 1 on.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: u64,
    text: String,
}

/// Publishes the lines of standard input until its end, an error or a request to stop, and passes on
/// what the hub answered about each. That is `None` for the lines after the first one of a repeat,
/// of which the hub remembers nothing.
pub(super) async fn publish_lines(
    client: &Client,
    hub: &HubArgs,
    format: LineFormat<'_>,
    mut report: impl FnMut(u64, Option<&Published>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut stops = stops().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let run = getrandom::u64().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
    let mut input =
        Input { reader: tokio::io::stdin(), format, rest: Vec::new(), count: 0, is_at_end: false };
    let mut publisher = Publisher { client, hub, format, run, stops: stops.clone(), published: 0 };
    loop {
        let lines = tokio::select! {
            biased;
            _ = stops.wait_for(|stops| *stops > 0) => return Ok(()),
            lines = input.next() => lines,
        };
        match lines {
            Ok(Some(lines)) => publisher.publish_all(&lines, &mut report).await?,
            Ok(None) => return Ok(()),
            Err((lines, failure)) => {
                publisher.publish_all(&lines, &mut report).await?;
                return Err(publisher.counted(failure));
            }
        }
    }
}

/// How often the command was asked to stop. From now on, such a signal does not end the process.
fn stops() -> io::Result<watch::Receiver<u32>> {
    let (count, stops) = watch::channel(0);
    #[cfg(unix)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    tokio::spawn(async move {
        loop {
            #[cfg(unix)]
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return std::future::pending().await;
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(stops)
}

struct Publisher<'a> {
    client: &'a Client,
    hub: &'a HubArgs,
    format: LineFormat<'a>,
    /// A random number, with which the idempotency keys of this run begin.
    run: u64,
    stops: watch::Receiver<u32>,
    /// How many events are published.
    published: u64,
}

impl Publisher<'_> {
    async fn publish_all(
        &mut self,
        lines: &[Line],
        report: &mut impl FnMut(u64, Option<&Published>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for lines in batches(lines) {
            match self.publish(lines).await? {
                Ok(answers) => self.report(lines, &answers, report)?,
                Err(ClientError::Refused { .. }) if lines.len() > 1 => {
                    for line in lines.chunks(1) {
                        let answers =
                            self.publish(line).await?.map_err(|error| self.explain(line, &error))?;
                        self.report(line, &answers, report)?;
                    }
                }
                Err(error) => return Err(self.explain(lines, &error)),
            }
        }
        Ok(())
    }

    /// Publishes lines in one request. Fails if the command is to end at once.
    async fn publish(&mut self, lines: &[Line]) -> Result<Result<Vec<Published>, ClientError>, Failure> {
        let batch = match self.batch(lines) {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(error)),
        };
        let answered = tokio::select! {
            answered = self.client.publish_batch(&batch) => Some(answered),
            _ = self.stops.wait_for(|stops| *stops > 1) => None,
        };
        answered.ok_or_else(|| self.unsettled(lines, Failure::runtime("interrupted")))
    }

    fn batch(&self, lines: &[Line]) -> Result<Batch, ClientError> {
        let mut batch = Batch::new();
        for Line { text, .. } in lines {
            match self.format {
                LineFormat::Text { topic, options, .. } => batch.event(topic, text, options)?,
                LineFormat::Json => batch.json(text)?,
            }
        }
        match lines.first() {
            // The hub would not recognise a repeat of events that it does not store.
            Some(first) if !lines.iter().all(|line| self.format.is_ephemeral(&line.text)) => {
                Ok(batch.idempotency_key(format!("{:016x}-{}-{}", self.run, first.number, lines.len())))
            }
            _ => Ok(batch),
        }
    }

    fn report(
        &mut self,
        lines: &[Line],
        answers: &[Published],
        report: &mut impl FnMut(u64, Option<&Published>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.published += lines.len() as u64;
        for (index, line) in lines.iter().enumerate() {
            report(line.number, answers.get(index)).map_err(|failure| {
                // The lines that follow would not be published, so this is no success.
                let why = match failure {
                    Failure::OutputClosed => Failure::runtime(&failure),
                    other => other,
                };
                self.counted(why)
            })?;
        }
        Ok(())
    }

    /// The failure to publish these lines.
    fn explain(&self, lines: &[Line], error: &ClientError) -> Failure {
        match error {
            // The hub counts the lines of a request.
            ClientError::Refused { status, detail } => {
                let detail = detail.strip_prefix("Line 1: ").unwrap_or(detail).to_owned();
                let failure = self.hub.explain(&ClientError::Refused { status: *status, detail });
                self.counted(failure.map(|why| format!("{}: {why}", numbers(lines))))
            }
            ClientError::Request(_) => {
                self.counted(self.hub.explain(error).map(|why| format!("{}: {why}", numbers(lines))))
            }
            error => self.unsettled(lines, self.hub.explain(error)),
        }
    }

    /// The failure to publish these lines, of which it is unknown whether they are published.
    fn unsettled(&self, lines: &[Line], failure: Failure) -> Failure {
        let whether = format!("{} may or may not be published", numbers(lines));
        self.counted(failure.map(|why| format!("{why}; {whether}")))
    }

    /// The failure, with what is published nevertheless.
    fn counted(&self, failure: Failure) -> Failure {
        let before = match self.published {
            0 => "nothing was published before".to_owned(),
            1 => "1 event was published before".to_owned(),
            count => format!("{count} events were published before"),
        };
        failure.map(|why| format!("{why}; {before}"))
    }
}

/// Whether an event in JSON has `"ephemeral":true`. What the hub refuses anyway has not.
fn is_ephemeral_json(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        ephemeral: bool,
    }
    serde_json::from_str(line).is_ok_and(|Event { ephemeral }| ephemeral)
}

/// The numbers of adjacent lines.
fn numbers(lines: &[Line]) -> String {
    match lines {
        [] => "no line".to_owned(),
        [line] => format!("line {}", line.number),
        [first, .., last] => format!("lines {} to {}", first.number, last.number),
    }
}

/// Divides lines into requests.
fn batches(lines: &[Line]) -> impl Iterator<Item = &[Line]> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |line: &&Line| {
            let fits = bytes < BATCH_BYTES;
            bytes += line.text.len();
            fits
        };
        let count = rest.iter().take(BATCH_LINES_MAX).take_while(fits).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        (count > 0).then_some(batch)
    })
}

/// Lines as they arrive.
struct Input<'a, R> {
    reader: R,
    format: LineFormat<'a>,
    /// What follows the last line end.
    rest: Vec<u8>,
    /// How many lines were read.
    count: u64,
    is_at_end: bool,
}

impl<R: AsyncRead + Unpin> Input<'_, R> {
    /// Waits for complete lines and returns all that have arrived; `None` at the end. Fails with a
    /// line that no event can contain, and the lines before it. Nothing is lost if the future is
    /// dropped.
    async fn next(&mut self) -> Result<Option<Vec<Line>>, (Vec<Line>, Failure)> {
        while !self.is_at_end {
            let before = self.rest.len();
            self.rest.reserve(READ_BYTES);
            let read = self.reader.read_buf(&mut self.rest).await.map_err(|error| {
                (Vec::new(), Failure::runtime(format!("cannot read standard input: {error}")))
            })?;
            self.is_at_end = read == 0;
            let line_end = self.rest[before..].iter().rposition(|byte| *byte == b'\n');
            let complete = match line_end {
                Some(at) => before + at + 1,
                None if self.is_at_end => before,
                None if self.rest.len() > INPUT_BYTES_MAX => {
                    return Err((Vec::new(), self.refuse("is longer than 64 MiB")));
                }
                None => continue,
            };
            let rest = self.rest.split_off(complete);
            let complete = std::mem::replace(&mut self.rest, rest);
            let lines = self.split(&complete)?;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
        Ok(None)
    }

    fn split(&mut self, complete: &[u8]) -> Result<Vec<Line>, (Vec<Line>, Failure)> {
        let mut lines = Vec::new();
        for line in complete.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Ok(text) = std::str::from_utf8(line) else {
                return Err((lines, self.refuse("is not valid UTF-8")));
            };
            self.count += 1;
            if !self.format.skips(text) {
                lines.push(Line { number: self.count, text: text.to_owned() });
            }
        }
        Ok(lines)
    }

    /// The line after those that were read cannot be published.
    fn refuse(&self, why: &str) -> Failure {
        Failure::runtime(format!("line {} of standard input {why}", self.count + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::Pin,
        task::{Context, Poll},
    };

    use proptest::{collection::vec, prelude::*};
    use tokio::{io::ReadBuf, runtime::Builder};

    use super::*;

    /// Each read returns one of these.
    struct Chunks(VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&self.0.pop_front().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }

    /// The lines that these chunks contain, and why the input ended early.
    fn read(
        chunks: impl IntoIterator<Item = Vec<u8>>,
        format: LineFormat<'_>,
    ) -> (Vec<Line>, Option<String>) {
        let chunks = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let mut input =
            Input { reader: Chunks(chunks), format, rest: Vec::new(), count: 0, is_at_end: false };
        let mut all = Vec::new();
        Builder::new_current_thread().build().unwrap().block_on(async {
            loop {
                match input.next().await {
                    Ok(Some(lines)) => all.extend(lines),
                    Ok(None) => return (all, None),
                    Err((lines, failure)) => {
                        all.extend(lines);
                        return (all, Some(failure.to_string()));
                    }
                }
            }
        })
    }

    fn line(number: u64, text: &str) -> Line {
        Line { number, text: text.to_owned() }
    }

    fn text(options: &tidings_client::Publish, keep_empty: bool) -> LineFormat<'_> {
        LineFormat::Text { topic: "t", options, is_ephemeral: false, keep_empty }
    }

    #[test]
    fn empty_lines_are_counted_and_skipped_unless_they_are_kept() {
        let options = tidings_client::Publish::new();
        let input = || [b"a\n\n \r\n\r\nb".to_vec()];
        let found = read(input(), text(&options, false)).0;
        assert_eq!(found, [line(1, "a"), line(3, " "), line(5, "b")]);
        let found = read(input(), text(&options, true)).0;
        assert_eq!(found, [line(1, "a"), line(2, ""), line(3, " "), line(4, ""), line(5, "b")]);
        assert_eq!(read(input(), LineFormat::Json).0, [line(1, "a"), line(5, "b")]);
    }

    #[test]
    fn a_line_that_no_event_can_contain_ends_the_input_after_the_lines_before_it() {
        let (lines, why) = read([b"a\nb\n\xff\nc\n".to_vec()], LineFormat::Json);
        assert_eq!(lines, [line(1, "a"), line(2, "b")]);
        assert_eq!(why.as_deref(), Some("line 3 of standard input is not valid UTF-8"));
        let endless =
            std::iter::once(b"a\n".to_vec()).chain(std::iter::repeat_n(vec![b'x'; READ_BYTES], 2_000));
        let (lines, why) = read(endless, LineFormat::Json);
        assert_eq!(lines, [line(1, "a")]);
        assert_eq!(why.as_deref(), Some("line 2 of standard input is longer than 64 MiB"));
    }

    #[test]
    fn a_request_has_a_bounded_number_of_lines_and_bytes() {
        let lines: Vec<_> = (0..1_200).map(|number| line(number, "x")).collect();
        assert_eq!(batches(&lines).map(<[Line]>::len).collect::<Vec<_>>(), [500, 500, 200]);
        let large = "x".repeat(BATCH_BYTES);
        let lines = [line(1, "x"), line(2, &large), line(3, &large), line(4, "x")];
        assert_eq!(batches(&lines).map(<[Line]>::len).collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn an_event_in_json_may_say_that_it_is_ephemeral() {
        assert!(is_ephemeral_json(r#"{"topic":"a","data":[1,{"b":2}],"ephemeral":true}"#));
        for line in [r#"{"topic":"a","data":{"ephemeral":true}}"#, r#"{"ephemeral":false}"#, "{", "7"] {
            assert!(!is_ephemeral_json(line), "{line}");
        }
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            texts in vec("[a\u{e9}\u{1f600} ]{1,4}", 0..20),
            ends_with_line_end: bool,
            sizes in vec(1_usize..9, 1..40),
        ) {
            let mut bytes = texts.join("\n").into_bytes();
            if ends_with_line_end && !texts.is_empty() {
                bytes.push(b'\n');
            }
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, others) = rest.split_at(rest.len().min(*size));
                chunks.push(chunk.to_vec());
                rest = others;
            }
            let options = tidings_client::Publish::new();
            let (lines, why) = read(chunks, text(&options, false));
            let expected: Vec<_> = texts.iter().zip(1..).map(|(text, number)| line(number, text)).collect();
            prop_assert_eq!(lines, expected);
            prop_assert_eq!(why, None);
        }
    }
}
