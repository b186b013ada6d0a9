"""Where the hub is, and the credential for it: ``http://:KEY@127.0.0.1:8080``, as ``TIDINGS_URL``
gives it.

The credential is never part of a text that is logged or raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from ._errors import ConfigurationError

_FORM = "http://:KEY@127.0.0.1:8080"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A hub, and what to present to it."""

    scheme: str
    host: str
    port: int
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def headers(self) -> dict[str, str]:
        """The header fields that present the credential."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


@lru_cache(maxsize=16)
def parse_address(url: str, token: str | None = None, name: str = "the URL of the hub") -> Address:
    """Reads an address; ``name`` says in errors where it comes from."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The text of the exception may quote the credential.
        raise ConfigurationError(f"{name} is no URL: it has the form {_FORM}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigurationError(f"{name} needs http:// or https:// and a host, as in {_FORM}")
    if parts.username:
        raise ConfigurationError(f"{name} has a user name: put a colon in front of the key, as in {_FORM}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} has more than a host and a port: write it as {_FORM}")
    key = unquote(parts.password) if parts.password else None
    if key and token:
        raise ConfigurationError(f"{name} has a key, and a token is given as well: give one of them")
    credential = key or token or None
    if credential and not all("!" <= character <= "~" for character in credential):
        raise ConfigurationError(f"the credential of {name} has characters that no key and no token has")
    return Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], credential)


@dataclass(frozen=True)
class Access:
    """A hub, and the secret to make tickets for it, ``ID:SECRET``."""

    address: Address
    ticket_secret: str | None = field(default=None, repr=False)


def access_from_environment(variables: Mapping[str, str] = os.environ) -> Access | None:
    """What ``TIDINGS_URL``, ``TIDINGS_TOKEN`` and ``TIDINGS_TICKET_SECRET`` say."""
    url = variables.get("TIDINGS_URL")
    if not url:
        return None
    address = parse_address(url, variables.get("TIDINGS_TOKEN") or None, "TIDINGS_URL")
    return Access(address, variables.get("TIDINGS_TICKET_SECRET") or None)
