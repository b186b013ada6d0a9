"""Processes of a test: servers of applications, and what is left of them."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import tidings

#: How long a test waits for something that should happen at once: nothing waits for it to pass.
PATIENCE_SECS = 120
SOURCE = os.fspath(Path(tidings.__file__).parents[1])


class Running:
    """A program in a process group of its own, and what it prints."""

    def __init__(self, command, directory, variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        environment.update(
            {"PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **variables}
        )
        environment.setdefault("TIDINGS_BIN", os.environ["TIDINGS_BIN"])
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self.printed = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.printed.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def match(self, pattern, seconds=PATIENCE_SECS):
        """Waits for a line, and returns its match."""

        def found():
            return next(
                (match for match in (re.search(pattern, line) for line in self.printed) if match), None
            )

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, seconds)
            match = found()
        assert match, f"{pattern} was not printed: {''.join(self.printed)}"
        return match

    def kill(self, number=signal.SIGKILL):
        """Ends all of its processes, also if it has ended by itself."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE_SECS)


def python(*arguments):
    return [sys.executable, *arguments]


def request(port, method, path, body=None, headers=None):
    """Sends a request, and returns status, headers and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECS)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def with_argument(part):
    """The processes one of whose arguments contains this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(part in argument for argument in command):
            found.append((int(entry.name), command))
    return found
