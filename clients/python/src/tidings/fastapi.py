"""FastAPI and Starlette: the route of a stream.

@app.get("/stream")
async def stream(request: Request, user: User = Depends(current_user)):
    return await tidings.fastapi.stream(request, "chat", f"user-{user.id}")
"""

from __future__ import annotations

import asyncio
import signal
import threading
import weakref
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ._asynchronous import in_thread
from ._own_route import Grant, PassedOn, answer


async def stream(request: Request, *topics: str, **options: Any) -> Response:
    """The response that becomes a stream of these topics, private events included.

    Options: ``patterns``, ``since``, ``format``, ``hello``, ``expires`` (seconds), ``label`` (to revoke it by).
    """
    given = await asyncio.to_thread(answer, Grant(topics, **options), request.headers)
    body, headers = given.body, dict(given.headers)
    if not isinstance(body, PassedOn):
        return Response(body, given.status, headers)
    _end_with_server(body)
    return StreamingResponse(_chunks(body), given.status, headers)


async def _chunks(body: PassedOn) -> AsyncIterator[bytes]:
    async for chunk in in_thread(iter(body), body.close):
        yield chunk


_open: weakref.WeakSet[PassedOn] = weakref.WeakSet()
_is_watching = False


def _end_with_server(body: PassedOn) -> None:
    """A development server waits for its responses before it ends or reloads, and a stream has no end: it ends at the signal."""
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
