"""The application's own route for a stream: which answer it gives, in the terms of no framework.

A hub in front of the application sends the header ``Tidings-Version``, and makes a stream of an
empty answer with ``Tidings-Subscribe``. A development server without a hub in front passes the
stream of the hub on by itself, so that browsers use one origin there too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Protocol
from urllib.parse import quote, urlencode

from . import _development, _recording
from ._client import Client
from ._errors import TidingsError
from ._events import as_topics
from ._subscription import Stream, subscription_query
from ._tickets import EXPIRES_SECS_MAX

_log = logging.getLogger("tidings")

VERSION = "Tidings-Version"
SUBSCRIBE = "Tidings-Subscribe"
LAST_EVENT_ID = "Last-Event-ID"
#: Headers of the hub's stream that a development server passes on.
_PASSED_ON = ("Content-Type", "Cache-Control", "X-Accel-Buffering", "Retry-After")

_NO_HUB_IN_FRONT = (
    "this route opens a stream, and no hub is in front of the application to do it: "
    "start it with `tidings run -- COMMAND`, or a hub with --authorize and the URL of this route"
)


class Headers(Protocol):
    """The headers of a request: names in any case."""

    def get(self, name: str, /) -> str | None: ...


@dataclass(frozen=True)
class Grant:
    """What the client of a stream receives."""

    topics: Sequence[str]
    patterns: Sequence[str] = ()
    since: str | None = None
    format: str | None = None
    hello: bool = False
    expires: int | None = None
    label: str | None = None

    def header(self) -> str:
        """The value of ``Tidings-Subscribe``."""
        query = subscription_query(as_topics(self.topics), self.patterns) + self.query()
        optional = {"expires": self.expires, "label": self.label}
        query += [(name, str(value)) for name, value in optional.items() if value is not None]
        return urlencode(query, quote_via=quote, safe="")

    def query(self) -> list[tuple[str, str]]:
        """What a request for the stream says besides its ticket."""
        optional = {"since": self.since, "format": self.format, "hello": "true" if self.hello else None}
        return [(name, value) for name, value in optional.items() if value is not None]


@dataclass(frozen=True)
class Answer:
    """What the route answers: bytes, or a stream, which is closed when the client has left."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | PassedOn = b""


class PassedOn:
    """A stream of the hub. It has what WSGI wants of a body: it can be iterated over and closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except (OSError, HTTPException, ValueError, AttributeError):
            # The hub has ended, or this was closed, which surfaces as one of the last two: the
            # client reconnects.
            if not self._is_closed:
                _log.info("a stream of the development hub was cut")

    def close(self) -> None:
        self._is_closed = True
        self._stream.close()


def subscribe_header(*topics: str, **options: object) -> str:
    """The value of ``Tidings-Subscribe`` for these topics, with the options of a :class:`Grant`,
    for any framework."""
    return Grant(topics, **options).header()  # type: ignore[arg-type]


def answer(grant: Grant, headers: Headers) -> Answer:
    """The answer to a request with these headers, whose names are looked up as HTTP does. It may
    wait for the hub."""
    if headers.get(VERSION) or _recording.current() is not None:
        return Answer(200, {SUBSCRIBE: grant.header(), "Cache-Control": "no-store"})
    if not _development.is_on():
        _log.error("%s", _NO_HUB_IN_FRONT)
        return _text(500, _NO_HUB_IN_FRONT)
    try:
        stream = _open(grant, headers.get(LAST_EVENT_ID))
    except (OSError, TidingsError) as error:
        _log.error("the stream of the development hub could not be opened: %s", error)
        return _text(502, str(error))
    passed_on = {name: value for name in _PASSED_ON if (value := stream.response.getheader(name)) is not None}
    return Answer(stream.status, passed_on, PassedOn(stream))


def _open(grant: Grant, last_id: str | None) -> Stream:
    # A ticket allows what the header would, with its label and its expiry.
    client = Client()
    ticket = client.ticket(
        as_topics(grant.topics),
        patterns=grant.patterns,
        label=grant.label,
        expires=min(grant.expires or EXPIRES_SECS_MAX, EXPIRES_SECS_MAX),
    )
    query = urlencode([("ticket", ticket), *grant.query()], quote_via=quote)
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers[LAST_EVENT_ID] = last_id
    return Stream(client.access(), f"/stream?{query}", headers, is_anonymous=True)


def _text(status: int, text: str) -> Answer:
    return Answer(status, {"Content-Type": "text/plain; charset=utf-8"}, f"{text}\n".encode())
