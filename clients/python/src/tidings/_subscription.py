"""A subscription: one stream after the other, each from where the last one ended."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote, urlencode

from ._address import Access
from ._connections import connect
from ._errors import Refused, TidingsError, detail_of
from ._events import Event, Gap, Received, Topics, as_topics
from ._sse import Message, Parser, TooLarge

#: A stream on which nothing arrives for this long is dead: the hub sends a comment every 15
#: seconds.
SILENCE_SECS_MAX = 45.0
_CONNECT_SECS_MAX = 10.0
_DELAY_SECS_MIN = 0.1
_DELAY_SECS_MAX = 30.0
#: Answers that end a subscription only if they are none of these.
_TEMPORARY = frozenset({408, 425, 429})


def subscription_query(topics: Topics, patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The query of a stream with these topics and patterns."""
    query = [("topic", topic) for topic in as_topics(topics)]
    query += [("pattern", pattern) for pattern in as_topics(patterns)]
    if not query:
        raise ValueError("a subscription needs a topic or a pattern")
    return query


class Stream:
    """One response that stays open. ``close`` ends it from any thread."""

    def __init__(
        self, access: Access, path: str, headers: dict[str, str], *, is_anonymous: bool = False
    ) -> None:
        self._connection = connect(access.address, _CONNECT_SECS_MAX)
        try:
            self._connection.connect()
            # The response takes the socket of a stream over; this one can interrupt it.
            self._socket = self._connection.sock
            credential = {} if is_anonymous else access.address.headers()
            self._connection.request("GET", path, headers={**credential, **headers})
            self.response = self._connection.getresponse()
            self._socket.settimeout(SILENCE_SECS_MAX)
        except BaseException:
            self._connection.close()
            raise

    @property
    def status(self) -> int:
        return self.response.status

    def __iter__(self) -> Iterator[bytes]:
        while True:
            chunk = self.response.read1(65536)
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The hub was faster.
        self._connection.close()
        self.response.close()


class Subscription(Iterator[Received]):
    """An iterator over events and gaps that reconnects by itself. It ends when it is closed or
    refused."""

    def __init__(self, access: Callable[[], Access], query: list[tuple[str, str]], since: str | None) -> None:
        self._access = access
        self._query = query
        self._since = since
        self._parser = Parser()
        self._closed = threading.Event()
        self._stream: Stream | None = None
        self._events = self._run()

    @property
    def last_id(self) -> str:
        """The id of the last event: ``since="id:" + last_id`` continues after it, in another
        process too."""
        return self._parser.last_id

    def __next__(self) -> Received:
        return next(self._events)

    def close(self) -> None:
        """Ends the subscription, also from another thread that waits for its next event."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> Iterator[Received]:
        failures = 0
        while not self._closed.is_set():
            retry_after: str | None = None
            try:
                stream = self._stream = self._open()
                try:
                    if self._closed.is_set():
                        return  # It was closed while the stream was opened.
                    if stream.status == 200:
                        for chunk in stream:
                            failures = 0
                            for message in self._parser.feed(chunk):
                                event = _read(message)
                                if event is not None and not self._closed.is_set():
                                    yield event
                    elif stream.status == 204:
                        return
                    elif stream.status < 500 and stream.status not in _TEMPORARY:
                        raise Refused(stream.status, detail_of(stream.response.read(65536)))
                    else:
                        retry_after = stream.response.getheader("Retry-After")
                finally:
                    stream.close()
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                # Closing a stream from another thread surfaces in the thread that reads as one of
                # the last two.
                if isinstance(error, (ValueError, AttributeError)) and not self._closed.is_set():
                    raise
            except TooLarge as error:
                raise TidingsError(str(error)) from error
            self._closed.wait(self._delay(failures, retry_after))
            failures += 1

    def _open(self) -> Stream:
        self._parser.begin()
        query = [*self._query, ("format", "json")]
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._parser.last_id:
            headers["Last-Event-ID"] = self._parser.last_id.encode().decode("latin-1")
        elif self._since is not None:
            query.append(("since", self._since))
        return Stream(self._access(), f"/stream?{urlencode(query, quote_via=quote)}", headers)

    def _delay(self, failures: int, retry_after: str | None) -> float:
        asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        retry = (self._parser.retry_millis or 0) / 1000
        if failures == 0 and retry and not asked:
            return max(retry, _DELAY_SECS_MIN)
        jitter = random.random() * min(2.0**failures, _DELAY_SECS_MAX)
        return max(asked, retry, _DELAY_SECS_MIN) + jitter


def _read(message: Message) -> Received | None:
    fields = json.loads(message.data)
    if message.type == "tidings":
        if fields.get("kind") != "gap":
            return None  # About this stream alone, which is replaced by itself.
        return Gap(fields["reason"], fields.get("requested"), fields.get("oldest"), fields.get("newest"))
    return Event(fields["topic"], fields["data"], fields["type"], fields["id"], fields["time"])
