"""A parser for ``text/event-stream`` (HTML, "Server-sent events"). It takes bytes and returns
events."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

#: An event larger than this ends the stream: the hub accepts none of this size.
EVENT_CHARACTERS_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    type: str
    data: str


class TooLarge(Exception):
    """A line or an event has no end."""


class Parser:
    """Keeps what a stream has said so far."""

    def __init__(self) -> None:
        #: The id that a reconnect sends.
        self.last_id = ""
        #: The last ``retry`` that was received, in milliseconds.
        self.retry_millis: int | None = None
        self.begin()

    def begin(self) -> None:
        """A new stream: an incomplete event of the last one is dropped."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._clear()
        self._id = self.last_id

    def feed(self, chunk: bytes) -> list[Message]:
        """The events that are complete with these bytes."""
        text = self._rest + self._decoder.decode(chunk)
        # A CR at the end may be the half of a CRLF.
        held = "\r" if text.endswith("\r") else ""
        *lines, rest = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = rest + held
        messages = [message for message in map(self._line, lines) if message]
        if len(self._rest) + self._size > EVENT_CHARACTERS_MAX:
            raise TooLarge(f"an event has more than {EVENT_CHARACTERS_MAX} characters")
        return messages

    def _clear(self) -> None:
        self._data: list[str] = []
        self._type = ""
        self._size = 0

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdecimal():
            self.retry_millis = int(value)
        return None

    def _dispatch(self) -> Message | None:
        self.last_id = self._id
        message = Message(self._type or "message", "\n".join(self._data)) if self._data else None
        self._clear()
        return message
