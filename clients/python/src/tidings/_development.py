"""The development mode: without ``TIDINGS_URL``, the first process of a project starts a hub, and
the others share it.

The hub belongs to a supervisor (``_supervisor.py``), which ends it some seconds after the last
process that uses it has ended. One hub serves one working directory, on a port of the loopback
address, with a key that is not stored anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any

from ._address import Access, parse_address
from ._errors import ConfigurationError

#: The hub ends this long after the last process that uses it: a reloader replaces a process in
#: less.
LINGER_SECS = 5
#: How long the first process waits for its hub.
_START_SECS_MAX = 40.0
_ATTEMPTS_MAX = 3

_lock = threading.Lock()
_is_on = False
_attached: socket.socket | None = None
_access: Access | None = None


def dev() -> None:
    """Switches the development mode on for this process, as ``TIDINGS_DEV=1`` does."""
    global _is_on
    _is_on = True


def is_on() -> bool:
    """Whether this process is in development: by ``TIDINGS_DEV``, by :func:`dev`, or as its
    framework says."""
    global _is_on
    chosen = os.environ.get("TIDINGS_DEV")
    if chosen:
        return chosen.lower() not in ("0", "false", "no", "off")
    _is_on = _is_on or _framework_is_in_development()
    return _is_on


def access() -> Access | None:
    """The hub of this project, which is started if it does not run. Outside of development there is
    none."""
    return attach() if is_on() else None


def attach() -> Access:
    """Connects to the supervisor of this project. The connection lasts as long as the process."""
    global _attached, _access
    with _lock:
        if _attached is not None and _access is not None and not _has_ended(_attached):
            return _access
        if _attached is not None:
            _attached.close()
        _attached, _access = _connect(Path(os.path.realpath(os.getcwd())))
        # The processes that this one starts, such as workers, are in development too.
        os.environ["TIDINGS_DEV"] = "1"
        return _access


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _framework_is_in_development() -> bool:
    environment = os.environ
    # `flask run`, and the process that the reloader of `app.run(debug=True)` starts.
    if environment.get("FLASK_RUN_FROM_CLI") == "true" or environment.get("WERKZEUG_RUN_MAIN") == "true":
        return True
    flask: Any = sys.modules.get("flask")
    if (
        flask is not None
        and hasattr(flask, "has_app_context")
        and flask.has_app_context()
        and flask.current_app.debug
    ):
        return True
    conf: Any = sys.modules.get("django.conf")
    if conf is not None and conf.settings.configured and conf.settings.DEBUG:
        return True
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return (program == "uvicorn" and "--reload" in sys.argv) or (
        program == "fastapi" and "dev" in sys.argv[1:2]
    )


def _connect(project: Path) -> tuple[socket.socket, Access]:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(
            "the development mode needs Unix sockets: start `tidings serve` yourself, and set TIDINGS_URL"
        )
    import fcntl

    name = hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
    directory = _private_directory()
    path = directory / f"{name}.sock"
    with open(directory / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(_ATTEMPTS_MAX):
            connection = _connect_to(path)
            if connection is None:
                _start_supervisor(directory, name)
                connection = _connect_to(path)
            access = _read_greeting(connection) if connection is not None else None
            if connection is not None and access is not None:
                return connection, access
            # The supervisor was about to end, and has removed its socket: the next attempt starts
            # another.
    raise ConfigurationError(f"the development hub ended {_ATTEMPTS_MAX} times while it started")


def _connect_to(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start_supervisor(directory: Path, name: str) -> None:
    hub = _program()
    path = directory / f"{name}.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(64)
        files = [path, directory / f"{name}.toml"]
        script = Path(__file__).with_name("_supervisor.py")
        # It leaves this process at once. In a session of its own, since Ctrl-C in the terminal is
        # for the application.
        subprocess.run(
            [
                sys.executable or "python3",
                "-I",
                os.fspath(script),
                hub,
                *map(os.fspath, files),
                str(LINGER_SECS),
            ],
            stdin=listener.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            check=True,
        )


def _read_greeting(connection: socket.socket) -> Access | None:
    connection.settimeout(_START_SECS_MAX)
    received = b""
    try:
        while not received.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                return None
            received += part
    except ConnectionResetError:
        return None
    except socket.timeout as error:
        raise ConfigurationError(
            f"the development hub did not start within {_START_SECS_MAX:.0f} seconds"
        ) from error
    connection.settimeout(None)
    fields = json.loads(received)
    if "error" in fields:
        raise ConfigurationError(f"the development hub did not start: {fields['error']}")
    return Access(parse_address(fields["url"]), fields["ticket_secret"])


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _program() -> str:
    """The hub: ``TIDINGS_BIN``, or the one that was installed with this package, or the one in the
    PATH."""
    chosen = os.environ.get("TIDINGS_BIN")
    if chosen:
        return chosen
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("tidings", path=scripts) or shutil.which("tidings")
    if found is None:
        raise ConfigurationError(
            "the program `tidings` is neither installed with this package nor in the PATH: install it, or set TIDINGS_BIN"
        )
    return found


def _private_directory() -> Path:
    """A directory of this user alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        directory = Path(runtime, "tidings")
    else:
        directory = Path(tempfile.gettempdir(), f"tidings-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(f"{directory} must be a directory that only its owner may use: remove it")
    return directory
