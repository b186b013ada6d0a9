"""What can go wrong. Every exception of this package is a :class:`TidingsError`."""

from __future__ import annotations

import json


class TidingsError(Exception):
    """The base of all exceptions of this package; its text is for people."""


class ConfigurationError(TidingsError):
    """No hub can be asked yet: an address, a credential or a program is missing or malformed."""


class Refused(TidingsError):
    """The hub answered that it will not do this, and repeating the request does not help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the hub answered {status}: {detail}")
        self.status = status
        self.detail = detail


class Unavailable(TidingsError):
    """The hub could not be reached, is overloaded, or did not answer in time."""

    def __init__(self, message: str, *, outcome_unknown: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        #: Whether the hub may have done what was asked. A repeat with the same idempotency key is
        #: safe.
        self.outcome_unknown = outcome_unknown


def detail_of(body: bytes) -> str:
    """The sentence for people in an answer that refuses something."""
    text = body.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200] or "without a reason"
