"""Publishing that never delays and never fails a request: a bounded queue, and a thread that sends.

What the hub refuses, does not accept in time, or what does not fit into the queue is dropped,
counted and logged.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from . import _recording
from ._client import Client
from ._errors import Refused, TidingsError, Unavailable
from ._events import Data, NewEvent, Topics

_log = logging.getLogger("tidings")

EVENTS_MAX = 10_000
BYTES_MAX = 32 * 1024 * 1024
#: How long one batch is tried.
PATIENCE_SECS = 30.0
#: Events that are sent together.
_BATCH_EVENTS_MAX = 100
_BATCH_BYTES_MAX = 256 * 1024
#: The exit of the process waits this long for events that were not sent.
EXIT_SECS = 2.0
#: At most one line is logged in this time.
_LOG_SECS = 10.0


class Background:
    """A queue in front of a client. Its size is bounded by events and by bytes, whichever is
    reached first."""

    def __init__(
        self,
        client: Client | None = None,
        *,
        events_max: int = EVENTS_MAX,
        patience: float = PATIENCE_SECS,
    ) -> None:
        self._client = client or Client()
        self._events_max = events_max
        self._patience_secs = patience
        self._log_due = 0.0
        self._unlogged = 0
        #: Events that were dropped so far.
        self.dropped = 0
        self._forget()
        _everywhere.add(self)

    def _forget(self) -> None:
        # After a fork the queue is the parent's, and so is the thread that empties it.
        self._changed = threading.Condition()
        self._queue: deque[tuple[NewEvent, int]] = deque()
        self._bytes = 0
        self._sending = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def publish(self, topics: Topics, data: Data, **options: Any) -> bool:
        """Queues an event, with the options of :meth:`Client.publish`. Returns whether it was
        queued."""
        return self.publish_event(NewEvent(topics, data, **options))

    def publish_event(self, event: NewEvent) -> bool:
        """Queues an event. Data that cannot be sent at all raises here, where the mistake is."""
        recorder = _recording.current()
        size = len(event.line())
        if recorder is not None:
            recorder.publish([event])
            return True
        with self._changed:
            problem = self._why_not(size)
            if problem is None:
                self._queue.append((event, size))
                self._bytes += size
                self._changed.notify_all()
                return True
        self._drop(1, problem)
        return False

    def _why_not(self, size: int) -> str | None:
        """Why an event of this size cannot be queued. The thread begins with the first event."""
        if self._is_closed:
            return "it was closed"
        if len(self._queue) + self._sending >= self._events_max or self._bytes + size > BYTES_MAX:
            return "the queue is full"
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="tidings-background", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # There are too many, or the process ends.
                return str(error)
            self._thread = thread
        return None

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything that is queued was sent or dropped. Returns whether it was, in
        time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._sending, timeout)

    def close(self, timeout: float = EXIT_SECS) -> None:
        """Accepts nothing more, and waits for what is queued; what is left after this time is
        dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if not self.flush(timeout):
            with self._changed:
                left = len(self._queue) + self._sending
                self._queue.clear()
            self._drop(left, "the process ends")
        self._report()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closed)
                if not self._queue:
                    return
                batch = self._next_batch()
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001 (the thread has nobody else to report to)
                self._drop(len(batch), f"{type(error).__name__}: {error}")
            with self._changed:
                self._sending = 0
                self._changed.notify_all()

    def _next_batch(self) -> list[NewEvent]:
        batch: list[NewEvent] = []
        total = 0
        while self._queue and len(batch) < _BATCH_EVENTS_MAX:
            size = self._queue[0][1]
            if batch and total + size > _BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft()[0])
            total += size
        self._bytes -= total
        self._sending = len(batch)
        return batch

    def _send(self, batch: Sequence[NewEvent]) -> None:
        # Ephemeral events are worth nothing later, and a hub cannot recognise a repeat of them.
        is_stored = not all(event.ephemeral for event in batch)
        key = uuid.uuid4().hex if is_stored else None
        deadline = time.monotonic() + self._patience_secs
        while True:
            try:
                self._client.publish_many(batch, idempotency_key=key)
                return
            except Refused as error:
                # One event that is refused must not take the others along.
                if len(batch) > 1:
                    for event in batch:
                        self._send([event])
                else:
                    self._drop(1, str(error))
                return
            except Unavailable as error:
                is_over = time.monotonic() >= deadline or self._is_closed or not is_stored
                if is_over:
                    self._drop(len(batch), str(error))
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, 1.0)
            except TidingsError as error:
                self._drop(len(batch), str(error))
                return

    def _drop(self, count: int, reason: str) -> None:
        with self._changed:
            self.dropped += count
            self._unlogged += count
            is_due = time.monotonic() >= self._log_due
        self._reason = reason
        if is_due:
            self._report()

    def _report(self) -> None:
        with self._changed:
            count, self._unlogged = self._unlogged, 0
            self._log_due = time.monotonic() + _LOG_SECS
        if count:
            _log.warning("%d events were dropped, %d so far: %s", count, self.dropped, self._reason)


_everywhere: weakref.WeakSet[Background] = weakref.WeakSet()


def _after_fork() -> None:
    for background in list(_everywhere):
        background._forget()


def _at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECS
    for background in list(_everywhere):
        background.close(max(0.0, deadline - time.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
