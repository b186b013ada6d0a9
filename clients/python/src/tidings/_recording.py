"""The recorder that takes the place of the hub in tests (``tidings.testing``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from ._events import NewEvent, Receipt


class Recorder(Protocol):
    """What receives publications while it is active."""

    def publish(self, events: Sequence[NewEvent]) -> list[Receipt]: ...


class Pending(Protocol):
    """A publication that has not happened yet."""

    event: NewEvent


_lock = threading.Lock()
_active: list[Recorder] = []
#: What waits for the commit of a test case, by framework.
pending_of_frameworks: list[Callable[[], Sequence[Pending]]] = []


def current() -> Recorder | None:
    """The recorder that was started last."""
    return _active[-1] if _active else None


def start(recorder: Recorder) -> None:
    with _lock:
        _active.append(recorder)


def stop(recorder: Recorder) -> None:
    with _lock:
        _active.remove(recorder)


def pending() -> list[Pending]:
    return [each for of_framework in pending_of_frameworks for each in of_framework()]
