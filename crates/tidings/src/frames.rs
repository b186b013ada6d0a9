//! Encoded events back to back: the contents of feeds and pages of history.
//!
//! Each frame is one HTTP/1.1 chunk with one event in it, so any run of complete frames can be sent
//! as it is. [`Mark`]s give each frame's position in the log and in the bytes, and who may receive
//! it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tidings_log::{Entry, Position};
use tidings_topic::{ConnectionId, Topic};

use crate::encode::{Format, encode_entry};

/// Frames that will not change any more.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Bytes,
    marks: Box<[Mark]>,
}

/// Frames that more are appended to.
#[derive(Debug, Default)]
pub(crate) struct OpenFrames {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    audience_bytes: usize,
}

/// One frame: where it stands and whom it is for.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    /// Where the chunk begins.
    pub(crate) start: u32,
    /// The event inside the chunk.
    inner_start: u32,
    inner_end: u32,
    /// Set if not everybody who reads these frames may receive this one.
    pub(crate) audience: Option<Arc<Audience>>,
}

/// Whom an event is for that is not for everybody. Neighbours with the same audience share it, so
/// that who has been judged once need not be judged again.
#[derive(Debug)]
pub(crate) struct Audience {
    /// Tells audiences apart for as long as the process lives.
    pub(crate) serial: u64,
    topics: Vec<Topic>,
    private: bool,
    except: Option<ConnectionId>,
}

/// Frames to be read, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) marks: &'a [Mark],
}

/// What one attempt to send came to.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Where the next frame begins.
    pub(crate) offset: usize,
    /// The last frame that has been sent whole, or passed over.
    pub(crate) place: Option<Position>,
    /// The part of a frame that the socket did not take.
    pub(crate) half: Option<Half>,
    pub(crate) took: Took,
}

/// How much a socket took of what it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Took {
    /// There was nothing to give.
    #[default]
    Nothing,
    /// Not everything: it is full.
    Part,
    All,
}

/// The rest of a frame whose beginning has been sent.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) position: Position,
    /// Where the rest stands in the bytes.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl OpenFrames {
    /// Room for about this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Encodes an entry behind those before it.
    pub(crate) fn push(&mut self, entry: &Entry, position: Position, format: Format) {
        let start = offset(self.bytes.len());
        let inner = encode_entry(entry, format, &mut self.bytes);
        let audience = self.audience(entry);
        let (inner_start, inner_end) = (offset(inner.start), offset(inner.end));
        self.marks.push(Mark { position, start, inner_start, inner_end, audience });
    }

    /// The audience of this entry: that of the last frame, if it is the same.
    fn audience(&mut self, entry: &Entry) -> Option<Arc<Audience>> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let event = &entry.event;
        if !event.private && event.except.is_none() {
            return None;
        }
        let last = self.marks.last().and_then(|mark| mark.audience.as_ref());
        let same = last.filter(|last| {
            last.private == event.private && last.except == event.except && last.topics == event.topics
        });
        if let Some(same) = same {
            return Some(Arc::clone(same));
        }
        let audience = Audience {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            topics: event.topics.clone(),
            private: event.private,
            except: event.except,
        };
        self.audience_bytes += audience.memory_bytes();
        Some(Arc::new(audience))
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, marks: &self.marks }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(crate) fn last(&self) -> Option<&Mark> {
        self.marks.last()
    }

    /// The memory of the frames, and of audiences where they are not shared.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.marks.capacity() * size_of::<Mark>() + self.audience_bytes
    }

    pub(crate) fn seal(self) -> Frames {
        Frames { bytes: self.bytes.into(), marks: self.marks.into() }
    }
}

impl Frames {
    pub(crate) fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, marks: &self.marks }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The memory of the frames, but for their audiences.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.marks)
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Bytes of these frames; shares their memory.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Bytes {
        self.bytes.slice(start..end)
    }

    /// The event of one frame, without its chunk; shares the memory.
    pub(crate) fn event(&self, index: usize) -> Bytes {
        let mark = &self.marks[index];
        self.bytes.slice(mark.inner_start as usize..mark.inner_end as usize)
    }

    /// The same frames without those that `keep` refuses.
    pub(crate) fn retain(&self, keep: impl Fn(&Mark) -> bool) -> Self {
        let mut kept = OpenFrames::with_capacity(self.bytes.len());
        for mark in self.marks.iter().filter(|mark| keep(mark)) {
            let start = offset(kept.bytes.len());
            kept.bytes.extend_from_slice(&self.bytes[mark.start as usize..mark.end()]);
            let moved = |at: u32| at - mark.start + start;
            kept.marks.push(Mark {
                start,
                inner_start: moved(mark.inner_start),
                inner_end: moved(mark.inner_end),
                ..mark.clone()
            });
        }
        kept.seal()
    }
}

impl Mark {
    /// Where the chunk ends: behind the line end that follows the event.
    pub(crate) fn end(&self) -> usize {
        self.inner_end as usize + b"\r\n".len()
    }

    /// The event inside the chunk.
    pub(crate) fn event<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.inner_start as usize..self.inner_end as usize]
    }
}

impl Audience {
    /// Whether somebody belongs to it, of whom `is_granted` knows whether the topics are covered;
    /// it is asked only if that matters.
    pub(crate) fn admits(
        &self,
        connection: &ConnectionId,
        is_granted: impl FnOnce(&[Topic]) -> bool,
    ) -> bool {
        !self.leaves_out(connection) && (!self.private || is_granted(&self.topics))
    }

    /// Whether the publisher has excepted this connection.
    pub(crate) fn leaves_out(&self, connection: &ConnectionId) -> bool {
        self.except.as_ref() == Some(connection)
    }

    /// Its memory, near enough for limits.
    fn memory_bytes(&self) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.as_str().len() + 32).sum();
        size_of::<Self>() + topics
    }
}

impl View<'_> {
    /// The first frame after a place.
    pub(crate) fn after(&self, place: Position) -> usize {
        self.marks.partition_point(|mark| mark.position <= place)
    }

    /// The frame that begins at an offset.
    pub(crate) fn at(&self, offset: usize) -> usize {
        self.marks.partition_point(|mark| (mark.start as usize) < offset)
    }

    /// Sends frames from the one that begins at `offset` on, as many as follow each other and may
    /// be received, in one call of `write`.
    pub(crate) fn send(
        &self,
        offset: usize,
        mut may_receive: impl FnMut(&Audience) -> bool,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        let from = self.at(offset);
        let mut judged: Option<(u64, bool)> = None;
        let mut is_for_reader = |mark: &Mark| match &mark.audience {
            None => true,
            Some(audience) => match judged {
                Some((serial, verdict)) if serial == audience.serial => verdict,
                _ => {
                    let verdict = may_receive(audience);
                    judged = Some((audience.serial, verdict));
                    verdict
                }
            },
        };
        let passed = self.marks[from..].iter().take_while(|mark| !is_for_reader(mark)).count();
        let first = from + passed;
        let run = self.marks[first..].iter().take_while(|mark| is_for_reader(mark)).count();
        let before = first.checked_sub(1).filter(|_| passed > 0).map(|index| self.marks[index].position);
        if run == 0 {
            return Ok(Sent { offset: self.bytes.len(), place: before, ..Sent::default() });
        }
        self.send_run(first, first + run, before, write)
    }

    /// Sends everything from `offset` on, which is known to be for everybody.
    pub(crate) fn send_all(
        &self,
        offset: usize,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        let end = self.bytes.len();
        if offset >= end {
            return Ok(Sent { offset: end, ..Sent::default() });
        }
        let written = write(&self.bytes[offset..])?;
        let last = self.marks.last().expect("bytes have marks");
        if offset + written == end {
            return Ok(Sent { offset: end, place: Some(last.position), half: None, took: Took::All });
        }
        Ok(self.cut(offset, offset + written, None))
    }

    fn send_run(
        &self,
        first: usize,
        end: usize,
        before: Option<Position>,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        let (start, stop) = (self.marks[first].start as usize, self.marks[end - 1].end());
        let written = write(&self.bytes[start..stop])?;
        if start + written == stop {
            let place = Some(self.marks[end - 1].position);
            return Ok(Sent { offset: stop, place, half: None, took: Took::All });
        }
        Ok(self.cut(start, start + written, before))
    }

    /// The socket took everything from `start` up to `stop`, which is somewhere before the end.
    fn cut(&self, start: usize, stop: usize, before: Option<Position>) -> Sent {
        // The frame that the cut is in or in front of.
        let index = self.marks.partition_point(|mark| mark.end() <= stop);
        let mark = &self.marks[index];
        let whole = index.checked_sub(1).filter(|whole| self.marks[*whole].start as usize >= start);
        let place = whole.map(|whole| self.marks[whole].position).or(before);
        if mark.start as usize >= stop {
            return Sent { offset: mark.start as usize, place, half: None, took: Took::Part };
        }
        let half = Half { position: mark.position, start: stop, end: mark.end() };
        Sent { offset: mark.end(), place, half: Some(half), took: Took::Part }
    }
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("segments and pages are bounded far below 4 GiB")
}

#[cfg(test)]
pub(crate) mod tests {
    use tidings_log::{Cursor, Epoch, Timestamp};
    use tidings_topic::{NewEvent, Validator};

    use super::*;

    /// Private events on these topics, so many on each.
    pub(crate) fn private(each: usize, topics: &[&str]) -> Frames {
        let mut frames = OpenFrames::default();
        for (number, topic) in topics.iter().flat_map(|topic| std::iter::repeat_n(topic, each)).enumerate() {
            let new = NewEvent { private: true, ..NewEvent::new(*topic, number.to_string()) };
            let position = Position::from_bytes((number as u128 + 1).to_be_bytes());
            let cursor = Cursor { epoch: Epoch::from_u64(1), position };
            let event = Validator::default().event(new).expect("valid");
            frames.push(&Entry::new(cursor, Timestamp::from_millis(0), event), position, Format::Plain);
        }
        frames.seal()
    }

    #[test]
    fn neighbours_with_the_same_audience_are_judged_once() {
        let frames = private(100, &["a", "b", "c"]);
        let mut judged = Vec::new();
        let topic = |audience: &Audience| audience.topics[0].as_str().to_owned();
        let sent = frames.view().send(
            0,
            |audience| {
                judged.push(topic(audience));
                judged.len() < 3
            },
            |bytes| Ok(bytes.len()),
        );
        let sent = sent.expect("it took everything");
        assert_eq!(judged, ["a", "b", "c"]);
        assert_eq!(sent.place, Some(frames.marks()[199].position), "a and b in one call");
    }
}
