//! Numbers, texts and audiences as they are stored: little-endian, each text behind its length.

use tidings_topic::Topic;

use crate::draft::Audience;

/// Appends a text behind its length. `None` if it is longer than 4 GiB.
pub(super) fn push_text(buffer: &mut Vec<u8>, text: &str) -> Option<()> {
    buffer.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
    buffer.extend(text.as_bytes());
    Some(())
}

/// Appends topics behind their count.
pub(super) fn push_topics(buffer: &mut Vec<u8>, topics: &[Topic]) {
    buffer.extend(count(topics).to_le_bytes());
    for topic in topics {
        push_text(buffer, topic.as_str()).expect("a topic fits a record");
    }
}

/// Appends an audience.
pub(super) fn push_audience(buffer: &mut Vec<u8>, audience: &Audience) {
    buffer.push(u8::from(audience.private));
    push_topics(buffer, &audience.topics);
}

/// The length of a list in a file.
pub(super) fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).expect("a file has fewer entries than bytes, and those fit")
}

/// Reads fields from the front of some bytes, within their bounds.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A topic.
    pub(super) fn topic(&mut self) -> Option<Topic> {
        self.text().and_then(Topic::from_stored)
    }

    /// Topics behind their count.
    pub(super) fn topics(&mut self) -> Option<Vec<Topic>> {
        let count = self.u32()?;
        (0..count).map(|_| self.topic()).collect()
    }

    /// An audience.
    pub(super) fn audience(&mut self) -> Option<Audience> {
        let private = self.take(1)?[0] != 0;
        Some(Audience { topics: self.topics()?, private })
    }
}
