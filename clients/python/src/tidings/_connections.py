"""Connections to a hub that are used again, by all threads of a process, and never by two
processes.

A process that forks (gunicorn with ``--preload``) leaves the connections of its parent alone: the
child begins with none.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

from ._address import Address

#: Connections that are kept while nothing is sent; more are opened when more threads send at once.
IDLE_CONNECTIONS_MAX = 8
#: An answer of the hub is read up to this size.
_ANSWER_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What the hub answered."""

    status: int
    body: bytes
    retry_after_secs: float | None


class SendError(Exception):
    """A request was not answered."""

    def __init__(self, cause: Exception, *, is_stale: bool, was_sent: bool) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        #: Whether a connection that had been idle failed: the hub may have closed it meanwhile.
        self.is_stale = is_stale
        #: Whether the hub may have received the request.
        self.was_sent = was_sent


class Connections:
    """The idle connections to one hub."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._forget()
        _everywhere.add(self)

    def _forget(self) -> None:
        # A lock that another thread held at the time of a fork would never be released in the
        # child.
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Sends a request once. It raises :class:`SendError`."""
        connection = self._take()
        is_reused = connection is not None
        if connection is None:
            connection = connect(self.address, timeout)
        was_sent = False
        try:
            connection.timeout = timeout
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout)
            was_sent = True
            connection.request(method, path, body, {**self.address.headers(), **headers})
            response = connection.getresponse()
            answer = Answer(response.status, response.read(_ANSWER_BYTES_MAX), _retry_after(response))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            is_stale = is_reused and not isinstance(error, socket.timeout)
            raise SendError(error, is_stale=is_stale, was_sent=was_sent) from error
        except BaseException:
            connection.close()
            raise
        if response.isclosed() and connection.sock is not None:
            self._give_back(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Closes the idle connections; the next request opens another."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if not _is_closed_by_hub(connection):
                return connection
            connection.close()

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(connection)
                return
        connection.close()


def connect(address: Address, timeout: float) -> http.client.HTTPConnection:
    """A connection that is opened by its first request."""
    if address.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=context)
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout)


def _is_closed_by_hub(connection: http.client.HTTPConnection) -> bool:
    """An idle connection on which something arrives was closed, since nothing was asked."""
    if not hasattr(select, "poll"):
        return bool(select.select([connection.sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    value = response.getheader("Retry-After", "")
    return float(value) if value.isdecimal() else None


_everywhere: weakref.WeakSet[Connections] = weakref.WeakSet()


def _after_fork() -> None:
    for connections in list(_everywhere):
        connections._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
