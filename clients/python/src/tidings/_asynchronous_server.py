"""A stream of the hub that an asynchronous development server passes on.

Such a server waits for its responses before it ends or reloads, and a stream has no end: it ends at
the signal.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import AsyncIterator
from types import FrameType

from ._asynchronous import in_thread
from ._own_route import PassedOn


async def chunks(body: PassedOn) -> AsyncIterator[bytes]:
    """The bytes of the stream, until its client leaves or the server ends."""
    _end_with_server(body)
    async for chunk in in_thread(iter(body), body.close):
        yield chunk


_open: weakref.WeakSet[PassedOn] = weakref.WeakSet()
_is_watching = False


def _end_with_server(body: PassedOn) -> None:
    global _is_watching
    _open.add(body)
    if _is_watching or threading.current_thread() is not threading.main_thread():
        return
    _is_watching = True
    for number in (signal.SIGINT, signal.SIGTERM):
        _chain(number)


def _chain(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def handle(received: int, frame: FrameType | None) -> None:
        for body in list(_open):
            body.close()
        if callable(before):
            before(received, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(number, handle)
