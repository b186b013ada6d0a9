//! What a subscriber is sent before anything from its feeds: the hub's own frames, and one page of
//! history. Both drivers send from it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tidings_log::{Cursor, Epoch};

use crate::{
    feed::encode::Notice,
    feed::frames::{Frame, Frames},
    replay::Replayed,
    subscriber::stages::Stages,
};

/// Bounded by one page and a few notices.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) control_frames: VecDeque<ControlFrame>,
    pub(crate) page: Option<PageProgress>,
}

/// A frame of the hub itself, without chunk framing: a preface, a notice.
#[derive(Debug)]
pub(crate) struct ControlFrame {
    /// The cursor that this frame moves the subscriber to.
    pub(crate) place: Option<Cursor>,
    pub(crate) bytes: Bytes,
}

/// How far a page of history has been sent.
#[derive(Debug)]
pub(crate) struct PageProgress {
    pub(crate) frames: Arc<Frames>,
    /// The epoch that the positions of the page are in.
    pub(crate) epoch: Epoch,
    /// Where in the bytes the next frame begins.
    pub(crate) offset: usize,
    /// For a reader that gives the page back: the stages as they were before it.
    pub(crate) unread: Option<Box<Stages>>,
}

impl Backlog {
    /// Adds a page that the reader has replayed. A gap is reported before anything that could move the
    /// reader past it.
    pub(crate) fn take_page(
        &mut self,
        page: Replayed,
        unread: Option<Box<Stages>>,
        hello: Option<ControlFrame>,
    ) {
        let gap = page.gap.map(|(place, bytes)| ControlFrame { place: Some(place), bytes });
        self.control_frames.extend(gap.into_iter().chain(hello));
        self.page = (page.frames.len() > 0).then_some(PageProgress {
            frames: page.frames,
            epoch: page.place.epoch,
            offset: 0,
            unread,
        });
    }

    /// The next event of the page, and its cursor.
    pub(crate) fn next_event(&mut self) -> Option<(Cursor, Bytes)> {
        let page = self.page.as_mut()?;
        let frame = Frame::new(&page.frames, page.frames.at(page.offset))?;
        let next = (Cursor { epoch: page.epoch, position: frame.position() }, frame.event());
        page.offset = frame.end();
        if page.offset == page.frames.len() {
            // A reader that has caught up keeps no memory of the page.
            self.page = None;
        }
        Some(next)
    }
}

impl ControlFrame {
    pub(crate) fn notice(notice: &Notice, place: Cursor) -> Self {
        Self { place: Some(place), bytes: notice.encode(place, None) }
    }
}
