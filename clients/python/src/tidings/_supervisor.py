"""The process that owns the hub of the development mode. It is started as a program, and imports
nothing of this package.

    _supervisor.py HUB SOCKET CONFIGURATION LINGER_SECS

Its standard input is a Unix socket that listens. Each process that uses the hub holds a connection
to it, on which the supervisor has written one line of JSON: the URL and the ticket secret of the
hub, or why there is none. Some seconds after the last of these connections has ended, with its
process, however that ended, the hub and the supervisor end. The secrets are in memory only.
"""

import contextlib
import ctypes
import json
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time

READY_SECS_MAX = 30
DRAIN_SECS_MAX = 5
# The process that starts a supervisor connects at once.
CONNECT_SECS_MAX = 5
_SERVES = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_PR_SET_PDEATHSIG = 1
_CONFIGURATION = """anonymous = false
[[key]]
name = "development"
secret_env = "DEVELOPMENT_KEY"
publish = ["*"]
subscribe = ["*"]
admin = true
[[ticket_secret]]
id = "development"
secret_env = "DEVELOPMENT_TICKET_SECRET"
"""


class Supervisor:
    def __init__(self, hub, path, configuration, linger_secs):
        self.command = [hub, "serve", "--listen", "127.0.0.1:0", "--config", configuration]
        self.path, self.linger_secs = path, float(linger_secs)
        write_private(configuration, _CONFIGURATION)
        self.listener = socket.socket(fileno=0)
        self.listener.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.attached = set()
        self.hub = None
        self.printed = b""
        self.greeting = None
        # The process that started this one is about to connect.
        self.ends_at = time.monotonic() + self.linger_secs

    def run(self):
        try:
            self.start_hub()
        except OSError as error:
            self.printed = str(error).encode()
            return self.close()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.hub.stdout, selectors.EVENT_READ, self.read_output)
        ready_until = time.monotonic() + READY_SECS_MAX
        try:
            while self.hub.poll() is None:
                if self.greeting is None and time.monotonic() > ready_until:
                    break
                for key, _ in self.selector.select(timeout=0.5):
                    key.data(key.fileobj)
                if self.ends_at is not None and time.monotonic() >= self.ends_at:
                    break
            self.close()
        finally:
            self.end_hub()

    def start_hub(self):
        key, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.secrets = (key, secret)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        environment.update(DEVELOPMENT_KEY=key, DEVELOPMENT_TICKET_SECRET=secret)
        library = ctypes.CDLL(None) if sys.platform == "linux" else None

        def end_with_parent():
            if library is not None:
                library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        self.hub = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            preexec_fn=end_with_parent,  # noqa: PLW1509 (there are no threads)
        )

    def accept(self, listener):
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self.attached.add(connection)
        self.ends_at = None
        self.selector.register(connection, selectors.EVENT_READ, self.read_attached)
        if self.greeting is not None:
            self.greet(connection)

    def greet(self, connection):
        try:
            connection.send(self.greeting)
        except OSError:
            self.detach(connection)

    def read_attached(self, connection):
        try:
            if connection.recv(1024):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.detach(connection)

    def detach(self, connection):
        self.selector.unregister(connection)
        connection.close()
        self.attached.discard(connection)
        if not self.attached:
            self.ends_at = time.monotonic() + self.linger_secs

    def read_output(self, output):
        read = os.read(output.fileno(), 65536)
        if not read:
            self.selector.unregister(output)
            self.hub.wait()
        self.printed = (self.printed + read)[-65536:]
        address = _SERVES.search(self.printed)
        if self.greeting is None and address:
            key, secret = self.secrets
            self.greeting = line(
                url=f"http://:{key}@127.0.0.1:{address.group(1).decode()}",
                ticket_secret=f"development:{secret}",
            )
            for connection in list(self.attached):
                self.greet(connection)

    def close(self):
        """Those who wait for a hub that never began learn why. Those who connect from now on find
        no socket, or receive no greeting, and start another supervisor."""
        if self.greeting is None:
            if self.hub is not None and self.hub.poll() is not None:
                self.printed += self.hub.stdout.read()
            reason = self.printed.decode("utf-8", "replace").strip()[-2000:]
            self.greeting = line(error=reason or "it printed nothing")
            for connection in list(self.attached):
                self.greet(connection)
            if not self.attached:
                self.listener.settimeout(CONNECT_SECS_MAX)
                self.accept(self.listener)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def end_hub(self):
        self.hub.terminate()
        try:
            self.hub.wait(DRAIN_SECS_MAX)
        except subprocess.TimeoutExpired:
            self.hub.kill()
            self.hub.wait()


def line(**fields):
    return json.dumps(fields).encode() + b"\n"


def write_private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def end(*_):
    sys.exit(0)


if __name__ == "__main__":
    # The process that started this one is not its parent, so that neither waits for the other.
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    Supervisor(*sys.argv[1:]).run()
