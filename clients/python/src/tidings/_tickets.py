"""Tickets that are made without asking the hub (docs/tickets.md of Tidings:
``tt1.SECRET_ID.CONTENTS.MAC``)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ._errors import ConfigurationError
from ._events import Topics, as_topics

EXPIRES_SECS = 3600
EXPIRES_SECS_MAX = 86400


def sign(secret_id: str, secret: str, contents: str) -> str:
    """The ticket with these contents, which are JSON."""
    message = f"tt1.{secret_id}.{_base64url(contents.encode())}"
    mac = hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest()
    return f"{message}.{_base64url(mac)}"


def make_ticket(secret: str, terms: dict[str, Any]) -> str:
    """A ticket of these terms under ``ID:SECRET``."""
    secret_id, separator, key = secret.partition(":")
    if not separator or not secret_id or not key:
        raise ConfigurationError("the ticket secret (TIDINGS_TICKET_SECRET) has the form ID:SECRET")
    now = int(time.time())
    times = {"id": secrets.token_urlsafe(16), "issued_at": now, "expires_at": now + terms["expires"]}
    names = {"topic": "topics", "pattern": "patterns"}
    rest = {names.get(name, name): value for name, value in terms.items() if name != "expires"}
    return sign(secret_id, key, json.dumps({**times, **rest}, separators=(",", ":")))


def ticket_terms(
    topics: Topics,
    patterns: Sequence[str],
    label: str | None,
    expires: int | timedelta | None,
    streams_max: int | None,
    address: str | None,
) -> dict[str, Any]:
    """What a ticket allows, in the words of ``POST /tickets``. It raises :class:`ValueError` for
    what no hub accepts."""
    seconds = int(expires.total_seconds()) if isinstance(expires, timedelta) else expires
    seconds = EXPIRES_SECS if seconds is None else seconds
    if not 1 <= seconds <= EXPIRES_SECS_MAX:
        raise ValueError(f"a ticket is valid for 1 to {EXPIRES_SECS_MAX} seconds, not {seconds}")
    if label is not None and not 1 <= len(label.encode()) <= 256:
        raise ValueError("the label of a ticket has 1 to 256 bytes")
    topics, patterns = as_topics(topics), as_topics(patterns)
    if not topics and not patterns:
        raise ValueError("a ticket needs a topic or a pattern")
    optional = {
        "topic": topics or None,
        "pattern": patterns or None,
        "label": label,
        "streams_max": streams_max,
        "address": address,
    }
    return {"expires": seconds, **{name: value for name, value in optional.items() if value is not None}}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
