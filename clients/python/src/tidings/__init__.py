"""Server push for Python applications: publish an event, and every browser that subscribed receives
it.

    import tidings

    tidings.publish("chat", "hello")
    tidings.publish(f"user-{user.id}", {"unread": 3}, private=True)

The functions of this module use the hub that ``TIDINGS_URL`` names, which ``tidings run`` sets, or
that of the development mode. :class:`Client` is for another hub, :class:`AsyncClient` for asyncio.
``tidings.flask``, ``tidings.django`` and ``tidings.fastapi`` have the route of a stream;
``tidings.testing`` records what was published.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any

from ._asynchronous import AsyncClient
from ._background import Background
from ._client import Client
from ._development import dev
from ._errors import ConfigurationError, Refused, TidingsError, Unavailable
from ._events import Data, Event, Gap, NewEvent, Receipt, Topics
from ._html import turbo_stream
from ._own_route import subscribe_header
from ._subscription import Subscription

__all__ = [
    "AsyncClient",
    "Background",
    "Client",
    "ConfigurationError",
    "Event",
    "Gap",
    "NewEvent",
    "Receipt",
    "Refused",
    "Subscription",
    "TidingsError",
    "Unavailable",
    "apublish",
    "asubscribe",
    "broadcast",
    "dev",
    "publish",
    "publish_in_background",
    "publish_many",
    "revoke",
    "subscribe",
    "subscribe_header",
    "ticket",
]

_client = Client()
_async_client = AsyncClient()
_background = Background(_client)


def publish(
    topics: Topics,
    data: Data,
    *,
    type: str | None = None,
    id: str | None = None,
    private: bool = False,
    retry: int | None = None,
    exclude: str | None = None,
    ephemeral: bool = False,
    idempotency_key: str | None = None,
) -> Receipt:
    """Publishes one event on a topic or on several, and returns when it is in the log of the hub.

    Text and bytes are sent as they are, everything else as JSON. It raises :class:`Refused` if the
    hub will not do it, and :class:`Unavailable` if there was no answer within two seconds.
    """
    return _client.publish(
        topics,
        data,
        type=type,
        id=id,
        private=private,
        retry=retry,
        exclude=exclude,
        ephemeral=ephemeral,
        idempotency_key=idempotency_key,
    )


def publish_many(
    events: Iterable[NewEvent | tuple[Topics, Data]], *, idempotency_key: str | None = None
) -> list[Receipt]:
    """Publishes all of these events in their order, or none."""
    return _client.publish_many(events, idempotency_key=idempotency_key)


def publish_in_background(topics: Topics, data: Data, **options: Any) -> bool:
    """Queues an event and returns at once, whatever the state of the hub; what is dropped is
    logged. Returns whether it was queued."""
    return _background.publish(topics, data, **options)


def broadcast(
    topics: Topics,
    html: str,
    *,
    target: str | None = None,
    targets: str | None = None,
    action: str = "append",
    **options: Any,
) -> Receipt:
    """Publishes HTML: as it is for htmx, or, with ``target`` (an id) or ``targets`` (a selector),
    as a Turbo Stream."""
    is_for_turbo = target is not None or targets is not None
    return publish(topics, turbo_stream(html, action, target, targets) if is_for_turbo else html, **options)


def ticket(
    topics: Topics = (),
    *,
    patterns: Sequence[str] = (),
    label: str | None = None,
    expires: int | timedelta | None = None,
    streams_max: int | None = None,
    address: str | None = None,
) -> str:
    """A ticket, with which a plain EventSource on any origin receives these topics:
    ``/stream?ticket=…``."""
    return _client.ticket(
        topics, patterns=patterns, label=label, expires=expires, streams_max=streams_max, address=address
    )


def revoke(**what: Any) -> None:
    """Ends streams, as :meth:`Client.revoke`: ``revoke(label="user-42")``."""
    _client.revoke(**what)


def subscribe(topics: Topics = (), *, patterns: Sequence[str] = (), since: str | None = None) -> Subscription:
    """Receives events over any number of reconnects: ``for event in tidings.subscribe("chat",
    since="-50")``."""
    return _client.subscribe(topics, patterns=patterns, since=since)


async def apublish(topics: Topics, data: Data, **options: Any) -> Receipt:
    """:func:`publish`, without blocking the event loop."""
    return await _async_client.publish(topics, data, **options)


def asubscribe(
    topics: Topics = (), *, patterns: Sequence[str] = (), since: str | None = None
) -> AsyncIterator[Event | Gap]:
    """:func:`subscribe`, for ``async for``."""
    return _async_client.subscribe(topics, patterns=patterns, since=since)
