"""The client for asyncio. It is the same client on threads of its own, so that the event loop never
waits.

A publication whose task is cancelled may be published nevertheless.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ._client import TIMEOUT_SECS, Client
from ._events import Data, Event, Gap, NewEvent, Receipt, Topics

T = TypeVar("T")

#: Calls that are under way at once; further ones wait.
_THREADS_MAX = 8
#: Items that a stream is ahead of its reader.
_AHEAD_MAX = 64


class AsyncClient:
    """A client with the methods of :class:`Client`, which are awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        ticket_secret: str | None = None,
        timeout: float = TIMEOUT_SECS,
    ) -> None:
        self.client = Client(url, token=token, ticket_secret=ticket_secret, timeout=timeout)
        self._executor: ThreadPoolExecutor | None = None
        self._process_id = 0

    async def publish(self, topics: Topics, data: Data, **options: Any) -> Receipt:
        """:meth:`Client.publish`"""
        return await self._call(partial(self.client.publish, topics, data, **options))

    async def publish_many(
        self,
        events: Iterable[NewEvent | tuple[Topics, Data]],
        *,
        idempotency_key: str | None = None,
    ) -> list[Receipt]:
        """:meth:`Client.publish_many`"""
        return await self._call(
            partial(self.client.publish_many, list(events), idempotency_key=idempotency_key)
        )

    async def ticket(self, topics: Topics = (), **options: Any) -> str:
        """:meth:`Client.ticket`"""
        return await self._call(partial(self.client.ticket, topics, **options))

    async def revoke(self, **what: Any) -> None:
        """:meth:`Client.revoke`"""
        await self._call(partial(self.client.revoke, **what))

    async def subscribe(
        self, topics: Topics = (), *, patterns: Sequence[str] = (), since: str | None = None
    ) -> AsyncIterator[Event | Gap]:
        """:meth:`Client.subscribe`: iterate with ``async for``."""
        subscription = self.client.subscribe(topics, patterns=patterns, since=since)
        async for event in in_thread(subscription, subscription.close):
            yield event

    async def close(self) -> None:
        """Closes the connections and threads that are idle. The client can be used again."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
        self.client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, call: Callable[[], T]) -> T:
        if self._executor is None or self._process_id != os.getpid():
            self._executor = ThreadPoolExecutor(_THREADS_MAX, "tidings")
            self._process_id = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


async def in_thread(source: Iterator[T], close: Callable[[], None]) -> AsyncIterator[T]:
    """Iterates in a thread of its own over what waits. ``close`` ends the iteration from outside."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[T | None, BaseException | None]] = asyncio.Queue()
    ahead = threading.Semaphore(_AHEAD_MAX)
    is_over = False

    def hand_over(item: T | None, end: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(items.put_nowait, (item, end))
        except RuntimeError:
            pass  # The loop has ended, and the reader with it.

    def run() -> None:
        try:
            for item in source:
                ahead.acquire()
                if is_over:
                    return
                hand_over(item, None)
            hand_over(None, StopAsyncIteration())
        except BaseException as error:  # noqa: BLE001 (it is raised where the items are read)
            hand_over(None, error)

    threading.Thread(target=run, name="tidings-stream", daemon=True).start()
    try:
        while True:
            item, end = await items.get()
            if isinstance(end, StopAsyncIteration):
                return
            if end is not None:
                raise end
            ahead.release()
            yield item  # type: ignore[misc]
    finally:
        is_over = True
        ahead.release()
        close()
