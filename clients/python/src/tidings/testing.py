"""For tests of applications: what was published, without a hub and without sockets.

    def test_order(client):
        with tidings.testing.record() as published:
            client.post("/orders")
        assert published[0].topics == ["orders"]

With pytest, the fixture ``published`` does the same for one test. While a recorder is active, the
route of a stream answers as behind a hub, so that its ``Tidings-Subscribe`` can be checked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

from . import _recording
from ._events import NewEvent, Receipt, as_topics

__all__ = ["Published", "Recorder", "record"]


@dataclass(frozen=True)
class Published:
    """An event as subscribers would receive it."""

    topics: list[str]
    data: str
    type: str | None = None
    id: str | None = None
    private: bool = False
    retry: int | None = None
    exclude: str | None = None
    ephemeral: bool = False

    def json(self) -> Any:
        """The data, parsed."""
        return json.loads(self.data)


class Recorder(Sequence[Published]):
    """What was published, in order. In a Django ``TestCase``, whose transaction never commits, what
    would be published then counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Published] = []
        self._before = _recording.pending()

    def publish(self, events: Sequence[NewEvent]) -> list[Receipt]:
        with self._lock:
            start = len(self._events)
            self._events += map(_published, events)
            return [
                Receipt(None if event.ephemeral else event.id or f"#recorded-{start + place}")
                for place, event in enumerate(events, 1)
            ]

    @property
    def events(self) -> list[Published]:
        """All of them."""
        pending = [each for each in _recording.pending() if each not in self._before]
        with self._lock:
            return self._events + [_published(each.event) for each in pending]

    def on(self, topic: str) -> list[Published]:
        """Those on this topic."""
        return [event for event in self.events if topic in event.topics]

    @overload
    def __getitem__(self, index: int) -> Published: ...
    @overload
    def __getitem__(self, index: slice) -> list[Published]: ...
    def __getitem__(self, index: int | slice) -> Published | list[Published]:
        return self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __repr__(self) -> str:
        return f"Recorder({self.events})"


@contextmanager
def record() -> Iterator[Recorder]:
    """Records everything that this process publishes, in every thread, until the end of the block."""
    recorder = Recorder()
    _recording.start(recorder)
    try:
        yield recorder
    finally:
        _recording.stop(recorder)


def _published(event: NewEvent) -> Published:
    topics = as_topics(event.topics)
    return Published(
        topics,
        event.text(),
        event.type,
        event.id,
        event.private,
        event.retry,
        event.exclude,
        event.ephemeral,
    )
