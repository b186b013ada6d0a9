"""Django: publishing on commit, and the view of a stream. ``INSTALLED_APPS`` needs
``"tidings.django"`` for the template tag.

def stream(request):
    return tidings.django.stream(request, "chat", f"user-{request.user.pk}")
"""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from .. import _client, _recording
from .._asynchronous_server import chunks
from .._events import Data, NewEvent, Topics
from .._html import turbo_stream
from .._own_route import Answer, Grant, PassedOn, answer

__all__ = ["astream", "broadcast", "publish", "publish_to_user", "stream", "user_stream"]

#: Since this version an exception of one callback of a commit does not keep the others from
#: running.
_HAS_ROBUST_CALLBACKS = django.VERSION >= (4, 2)


class PublishOnCommit:
    """The callback of a transaction, which ``tidings.testing`` recognises."""

    def __init__(self, event: NewEvent) -> None:
        self.event = event
        self.was_called = False

    def __call__(self) -> None:
        self.was_called = True
        _client.publish_many([self.event])


def publish(
    topics: Topics, data: Data, *, using: str | None = None, on_commit: bool = True, **options: Any
) -> None:
    """Publishes when the transaction of the database ``using`` commits, or at once if there is
    none; never after a rollback.

    By then the data is committed, so a failure is logged and does not raise. With
    ``on_commit=False`` this is :func:`tidings.publish`, which raises.
    """
    event = NewEvent(topics, data, **options)
    if not on_commit:
        _client.publish_many([event])
        return
    event.line()  # Data that cannot be sent raises here, where the mistake is.
    robust = {"robust": True} if _HAS_ROBUST_CALLBACKS else {}
    transaction.on_commit(PublishOnCommit(event), using=using, **robust)


def broadcast(
    topics: Topics,
    html: str,
    *,
    target: str | None = None,
    targets: str | None = None,
    action: str = "append",
    **options: Any,
) -> None:
    """:func:`tidings.broadcast`, on commit."""
    is_for_turbo = target is not None or targets is not None
    publish(topics, turbo_stream(html, action, target, targets) if is_for_turbo else html, **options)


def stream(request: HttpRequest, *topics: str, **options: Any) -> HttpResponseBase:
    """The response that becomes a stream of these topics, private events included.

    Options: ``patterns``, ``since``, ``format``, ``hello``, ``expires`` (seconds), ``label`` (to
    revoke it by).
    """
    return _response(answer(Grant(topics, **options), request.headers), isinstance(request, ASGIRequest))


async def astream(request: HttpRequest, *topics: str, **options: Any) -> HttpResponseBase:
    """:func:`stream` for an asynchronous view."""
    return await sync_to_async(stream)(request, *topics, **options)


def publish_to_user(user: Any, data: Data, **options: Any) -> None:
    """:func:`publish` for one user alone, who receives it on :func:`user_stream`."""
    publish(_topic_of(user), data, private=True, **options)


def user_stream(request: HttpRequest) -> HttpResponseBase:
    """A view: the stream of the user who is logged in, 403 for anybody else. Its label is its
    topic, ``user-`` and the primary key."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return HttpResponse(status=403)
    return stream(request, _topic_of(user), label=_topic_of(user))


def _topic_of(user: Any) -> str:
    return f"user-{user.pk}"


def _response(given: Answer, is_asynchronous: bool) -> HttpResponseBase:
    body = given.body
    if not isinstance(body, PassedOn):
        return HttpResponse(body, status=given.status, headers=dict(given.headers))
    if is_asynchronous:
        return StreamingHttpResponse(chunks(body), status=given.status, headers=dict(given.headers))
    return StreamingHttpResponse(body, status=given.status, headers=dict(given.headers))


def _pending() -> list[PublishOnCommit]:
    """What waits for a commit that a test case never makes, while no other transaction is open."""
    pending: list[PublishOnCommit] = []
    for alias in connections:
        connection = connections[alias]
        blocks = getattr(connection, "atomic_blocks", [])
        if all(getattr(block, "_from_testcase", False) for block in blocks):
            callbacks = (callback[1] for callback in connection.run_on_commit)
            pending += (
                each for each in callbacks if isinstance(each, PublishOnCommit) and not each.was_called
            )
    return pending


_recording.pending_of_frameworks.append(_pending)
