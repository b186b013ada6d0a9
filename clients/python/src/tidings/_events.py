"""Events as they are published and received, and the hub's receipt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

#: Text and bytes in UTF-8 are published as they are, everything else as its JSON.
Data = Any
#: One topic, or several: an event is delivered once to a subscriber of any of them.
Topics = Union[str, Sequence[str]]


@dataclass(frozen=True)
class NewEvent:
    """An event to be published."""

    topics: Topics
    data: Data
    type: str | None = None
    id: str | None = None
    private: bool = False
    #: Milliseconds that browsers wait before they reconnect.
    retry: int | None = None
    #: The name of a connection that does not receive the event.
    exclude: str | None = None
    #: Subscribers that are connected now receive it, and it is not stored: for typing, cursors,
    #: progress.
    ephemeral: bool = False

    def text(self) -> str:
        """The data as subscribers receive it."""
        if isinstance(self.data, (bytes, bytearray, memoryview)):
            return str(self.data, "utf-8")
        if isinstance(self.data, str):
            return self.data
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def line(self) -> bytes:
        """The event as a line of ``POST /topics``."""
        fields: dict[str, Any] = {"topics": as_topics(self.topics), "data": self.text()}
        optional = {"type": self.type, "id": self.id, "retry": self.retry, "except": self.exclude}
        fields.update({name: value for name, value in optional.items() if value is not None})
        if self.private:
            fields["private"] = True
        if self.ephemeral:
            fields["ephemeral"] = True
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def as_topics(topics: Topics) -> list[str]:
    """One topic or several, as a list."""
    several = [topics] if isinstance(topics, str) else list(topics)
    for topic in several:
        if not isinstance(topic, str):
            raise TypeError(f"a topic is a text, not {topic!r}")
    return [str(topic) for topic in several]


@dataclass(frozen=True)
class Receipt:
    """The event is in the log of the hub, or, if it is ephemeral, on its way to the subscribers."""

    #: ``None`` for an ephemeral event.
    id: str | None
    #: Whether it had been published before, with the same idempotency key.
    duplicate: bool = False


@dataclass(frozen=True)
class Event:
    """An event as a subscriber receives it."""

    topic: str
    data: str
    type: str
    id: str
    #: When it was published, as RFC 3339 in UTC.
    time: str

    def json(self) -> Any:
        """The data, parsed."""
        return json.loads(self.data)


@dataclass(frozen=True)
class Gap:
    """Events that this subscriber could have received are gone; the stream goes on at the oldest
    that is kept."""

    #: ``expired``, ``unknown`` or ``other-log``.
    reason: str
    requested: str | None
    oldest: str | None
    newest: str | None


#: What a subscription yields.
Received = Union[Event, Gap]
