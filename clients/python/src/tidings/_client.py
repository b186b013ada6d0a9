"""The client: publish, make tickets, end streams, subscribe. One of them serves all threads of a
process."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from . import _development, _recording
from ._address import Access, access_from_environment, parse_address
from ._connections import Answer, Connections, SendError
from ._errors import ConfigurationError, Refused, Unavailable, detail_of
from ._events import Data, NewEvent, Receipt, Topics
from ._subscription import Subscription, subscription_query
from ._tickets import make_ticket, ticket_terms

TIMEOUT_SECS = 2.0
#: The first wait between two attempts; it doubles, and half of it is random.
_DELAY_FIRST_SECS = 0.05
#: Answers after which the same request may succeed.
_TEMPORARY = frozenset({408, 425, 429, 502, 503, 504})
#: Those of them that are given before anything happened.
_REFUSED_BEFORE = frozenset({408, 425, 429})

#: A single event is sent as a batch of one line, which is not worth a mention.
_ONE_LINE = "Line 1: "
_NO_HUB = (
    "no hub is configured: start the application with `tidings run -- COMMAND`, or set TIDINGS_URL to "
    "http://:KEY@HOST:PORT; in development TIDINGS_DEV=1 starts a hub"
)


class Client:
    """A client of one hub: that of ``url``, or of ``TIDINGS_URL``, or of the development mode.

    ``timeout`` is the time in seconds that a call takes at most, with all its attempts. A
    publication that was not answered is repeated with the same idempotency key until then, so that
    it is published once.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        ticket_secret: str | None = None,
        timeout: float = TIMEOUT_SECS,
    ) -> None:
        if token is not None and url is None:
            raise ConfigurationError("a token needs the URL of its hub: Client(url, token=…)")
        self._access = None if url is None else Access(parse_address(url, token), ticket_secret)
        self._ticket_secret = ticket_secret
        self.timeout = timeout
        self._connections: Connections | None = None

    def access(self) -> Access:
        """The hub that this client uses now."""
        access = self._access or access_from_environment() or _development.access()
        if access is None:
            raise ConfigurationError(_NO_HUB)
        return access

    def publish(
        self,
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
        """Publishes one event on a topic or on several, and returns when it is in the log of the
        hub."""
        event = NewEvent(topics, data, type, id, private, retry, exclude, ephemeral)
        return self.publish_many([event], idempotency_key=idempotency_key)[0]

    def publish_many(
        self,
        events: Iterable[NewEvent | tuple[Topics, Data]],
        *,
        idempotency_key: str | None = None,
    ) -> list[Receipt]:
        """Publishes all of these events in their order, or none. A repeat is answered with the
        receipt of the first."""
        all_events = [event if isinstance(event, NewEvent) else NewEvent(*event) for event in events]
        if not all_events:
            return []
        body = b"".join(event.line() for event in all_events)
        recorder = _recording.current()
        if recorder is not None:
            return recorder.publish(all_events)
        headers = {"Content-Type": "application/x-ndjson"}
        if idempotency_key is None and not all(event.ephemeral for event in all_events):
            idempotency_key = uuid.uuid4().hex
        # A hub that does not store the events cannot recognise a repeat.
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        answer = self._request(
            "POST",
            "/topics",
            body,
            headers,
            is_single=len(all_events) == 1,
            is_sent_once=idempotency_key is None,
        )
        return [
            Receipt(receipt["id"], receipt.get("duplicate", False)) for receipt in _json(answer)["events"]
        ]

    def ticket(
        self,
        topics: Topics = (),
        *,
        patterns: Sequence[str] = (),
        label: str | None = None,
        expires: int | timedelta | None = None,
        streams_max: int | None = None,
        address: str | None = None,
    ) -> str:
        """A ticket for an EventSource: without a request where the secret is known, else made by
        the hub."""
        terms = ticket_terms(topics, patterns, label, expires, streams_max, address)
        access = None if self._ticket_secret else self.access()
        secret = self._ticket_secret or (access and access.ticket_secret)
        if secret:
            return make_ticket(secret, terms)
        answer = self._request("POST", "/tickets", json.dumps(terms).encode(), _JSON)
        return answer.body.decode().strip()

    def revoke(
        self,
        *,
        label: str | None = None,
        ticket: str | None = None,
        id: str | None = None,
        jti: str | None = None,
        issuer: str | None = None,
        connection: str | None = None,
        expires_secs: int | None = None,
    ) -> None:
        """Ends streams, and refuses what was issued for them before: by label, by the id of a
        ticket or token, or one stream."""
        terms = {
            "label": label,
            "ticket": ticket,
            "id": id,
            "jti": jti,
            "issuer": issuer,
            "connection": connection,
            "expires_secs": expires_secs,
        }
        given = {name: value for name, value in terms.items() if value is not None}
        self._request("POST", "/revoke", json.dumps(given).encode(), _JSON)

    def subscribe(
        self, topics: Topics = (), *, patterns: Sequence[str] = (), since: str | None = None
    ) -> Subscription:
        """Receives events, in the order of the hub, over any number of reconnects: iterate over it,
        and close it."""
        return Subscription(self.access, subscription_query(topics, patterns), since)

    def close(self) -> None:
        """Closes the connections that are idle. The client can be used again."""
        if self._connections is not None:
            self._connections.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connections_to(self, access: Access) -> Connections:
        connections = self._connections
        if connections is None or connections.address != access.address:
            connections = self._connections = Connections(access.address)
        return connections

    def _request(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        is_single: bool = False,
        is_sent_once: bool = False,
    ) -> Answer:
        """Sends a request that may be repeated, until it is answered or the time is over. One that
        is sent once is not repeated if it may have been published."""
        access = self.access()
        connections = self._connections_to(access)
        deadline = time.monotonic() + self.timeout
        delay, outcome_unknown = _DELAY_FIRST_SECS, False
        while True:
            status, retry_after = None, None
            try:
                answer = connections.send(
                    method, path, body, headers, max(0.001, deadline - time.monotonic())
                )
            except SendError as error:
                if error.is_stale:
                    continue
                outcome_unknown = outcome_unknown or error.was_sent
                problem = f"{access.address} cannot be reached or did not answer: {error}"
            else:
                if answer.status in (200, 204):
                    return answer
                status, retry_after = answer.status, answer.retry_after_secs
                detail = detail_of(answer.body)
                if is_single and detail.startswith(_ONE_LINE):
                    detail = detail[len(_ONE_LINE) :]
                if status < 500 and status not in _TEMPORARY:
                    raise Refused(status, detail)
                nothing_happened = status in _REFUSED_BEFORE or status == 507 or "Nothing was" in detail
                outcome_unknown = outcome_unknown or not nothing_happened
                problem = f"the hub answered {status}: {detail}"
            wait = max(delay * (0.5 + random.random() / 2), retry_after or 0.0)
            is_final = status is not None and status not in _TEMPORARY
            is_final = is_final or (is_sent_once and outcome_unknown)
            if is_final or time.monotonic() + wait >= deadline:
                raise Unavailable(problem, outcome_unknown=outcome_unknown, status=status)
            time.sleep(wait)
            delay *= 2


_JSON = {"Content-Type": "application/json"}


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise Unavailable(
            "something that is no hub answered: 200 without JSON", outcome_unknown=True
        ) from error
