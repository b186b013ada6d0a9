"""The development mode: one hub for a project, for as long as one of its processes lives, however
it ends."""

import http.client
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from conftest import until
from processes import PATIENCE_SECS, Running, python, request, with_argument

from tidings import Client, ConfigurationError, _development

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

APPLICATIONS = Path(__file__).with_name("applications")
#: A reloader that has not reacted after this time has not seen the change.
RELOAD_SECS = 5
#: Prints the hub, then a line for each event on the standard input once it is published.
WORKER = """
import sys, tidings
print("hub", tidings._client.access().address)
for line in sys.stdin:
    print("published", tidings.publish("chat", line.strip()).id, tidings._client.access().address)
"""


@pytest.fixture
def project(tmp_path):
    """A working directory, and the variables that make it a project of its own."""
    directory, runtime = tmp_path / "project", tmp_path / "runtime"
    directory.mkdir()
    runtime.mkdir()
    project = Project(directory, runtime)
    yield project
    project.end()


class Project:
    def __init__(self, directory, runtime):
        self.directory, self.runtime = directory, runtime
        self.variables = {"XDG_RUNTIME_DIR": str(runtime), "TIDINGS_DEV": "1"}
        self.running = []

    def start(self, command, **variables):
        running = Running(command, self.directory, {**self.variables, **variables})
        self.running.append(running)
        return running

    def worker(self):
        return self.start(python("-c", WORKER))

    def processes(self, program):
        """Those of the development mode: the supervisor and the hub."""
        return [pid for pid, command in with_argument(str(self.runtime)) if program in " ".join(command[:3])]

    def end(self):
        for running in self.running:
            running.kill()
        for supervisor in self.processes("_supervisor.py"):
            os.kill(supervisor, signal.SIGTERM)
        self.ends()

    def ends(self):
        until("the hub and its supervisor to end", lambda: not with_argument(str(self.runtime)))


def hub_of(worker):
    return worker.match(r"^hub (\S+)").group(1)


def publish(worker, text):
    worker.process.stdin.write(f"{text}\n")
    worker.process.stdin.flush()
    return worker.match(r"^published (\S+) (\S+)").group(2)


def test_processes_that_start_at_once_share_a_hub_until_the_last_is_killed(project):
    workers = [project.worker() for _ in range(4)]
    hubs = {hub_of(worker) for worker in workers}
    assert len(hubs) == 1
    for worker in workers[1:]:
        worker.kill()
    assert {publish(workers[0], "hello")} == hubs
    # A process that replaces another one, as a reloader does.
    workers[0].kill()
    assert {hub_of(project.worker())} == hubs
    assert len(project.processes("_supervisor.py")) == 1
    for worker in project.running:
        worker.kill()
    project.ends()


def test_a_hub_that_was_killed_is_replaced(project):
    worker = project.worker()
    hub = hub_of(worker)
    [killed] = project.processes("serve")
    os.kill(killed, signal.SIGKILL)
    until("the supervisor to end", lambda: not project.processes("_supervisor.py"))
    assert publish(worker, "hello") != hub


def test_a_hub_does_not_outlive_a_supervisor_that_was_killed(project):
    worker = project.worker()
    hub_of(worker)
    [killed] = project.processes("_supervisor.py")
    os.kill(killed, signal.SIGKILL)
    until("the hub to end", lambda: not project.processes("serve"))
    publish(worker, "hello")
    assert len(project.processes("_supervisor.py")) == 1


def test_secrets_are_in_no_file_and_no_argument(project):
    code = "import tidings; a = tidings._client.access(); print('key', a.address.token, a.ticket_secret); input()"
    _, key, secret = project.start(python("-c", code)).match("^key .*").group().split()
    written = b"".join(path.read_bytes() for path in project.runtime.rglob("*") if path.is_file())
    arguments = " ".join(
        argument for _, command in with_argument(str(project.runtime)) for argument in command
    )
    for word in (key, secret.partition(":")[2]):
        assert len(word) > 20
        assert word.encode() not in written
        assert word not in arguments
    assert (project.runtime / "tidings").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/bin/false", "it printed nothing"), ("/nowhere/tidings", "No such file"), ("/bin/ls", "--listen")],
)
def test_a_hub_that_does_not_start_is_an_error_that_says_why(project, program, reason):
    worker = project.start(python("-c", WORKER), TIDINGS_BIN=program)
    worker.match(rf"ConfigurationError: the development hub did not start: .*{reason}")


def test_a_directory_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TIDINGS_DEV", "1")
    (tmp_path / "tidings").mkdir(mode=0o777)
    (tmp_path / "tidings").chmod(0o777)
    with pytest.raises(ConfigurationError, match="only its owner"):
        Client().publish("chat", "hello")


def test_development_is_chosen_or_seen(monkeypatch):
    monkeypatch.setattr(_development, "_is_on", False)
    for framework in ("flask", "django.conf"):
        monkeypatch.delitem(sys.modules, framework, raising=False)
    for value, is_on in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("TIDINGS_DEV", value)
        assert _development.is_on() is is_on
    monkeypatch.setattr(sys, "argv", ["/usr/bin/uvicorn", "app:app", "--reload"])
    assert _development.is_on()
    monkeypatch.setattr(_development, "_is_on", False)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/uvicorn", "app:app"])
    assert not _development.is_on()


def uvicorn(application, port):
    return ["-m", "uvicorn", application, "--reload", "--port", str(port)]


#: The application, the command, and the paths of streams.
SERVERS = {
    "flask": (
        "flask_app",
        lambda port: ["-m", "flask", "--app", "flask_app", "run", "--debug", "--port", str(port)],
    ),
    "django": ("django_app", lambda port: ["django_app.py", "runserver", f"127.0.0.1:{port}"]),
    "asynchronous django": ("django_app", lambda port: uvicorn("django_app:asynchronous", port)),
    "fastapi": ("fastapi_app", lambda port: uvicorn("fastapi_app:app", port)),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_development_server_has_streams_and_a_hub_that_survive_its_reloader(project, name):
    module, command = SERVERS[name]
    application = project.directory / f"{module}.py"
    shutil.copy(APPLICATIONS / application.name, application)
    port = free_port()
    # Flask and Django are recognised; uvicorn is started as a module, which has another name.
    project.variables["TIDINGS_DEV"] = "1" if name == "fastapi" else ""
    server = project.start(python(*command(port)))
    first = until("the server", lambda: answered(port, "1"))
    stream, read = open_stream(port)
    assert read("data: 1")
    assert stream.getheader("Content-Type").startswith("text/event-stream")

    until("another process", Reload(application, port, first))
    path = "/astream" if name == "asynchronous django" else "/stream"
    _, read = until("a stream of it", lambda: tried(lambda: open_stream(port, path=path)))
    # What was published before the reload is there: it is the same hub.
    assert read("data: 1")
    assert read("data: 2")
    server.kill(signal.SIGTERM if "uvicorn" in command(port) else signal.SIGINT)
    if name == "django":
        project.ends()


class Reload:
    """Changes a file of the application until another process answers: what a reloader finds when
    it begins is no change to it."""

    def __init__(self, application, port, first):
        self.application, self.port, self.first = application, port, first
        self.changes_at = 0

    def __call__(self):
        process = answered(self.port, "2")
        if process is None or process == self.first:
            if process is not None and time.monotonic() > self.changes_at:
                self.application.write_text(self.application.read_text() + "# Changed.\n")
                self.changes_at = time.monotonic() + RELOAD_SECS
            return None
        return process


def tried(action):
    """Its result, or none while the server is replaced."""
    try:
        return action()
    except (OSError, http.client.HTTPException):
        return None


def answered(port, text, path="/publish"):
    """The answer of the application that has published this, if there is one."""
    status, _, body = tried(lambda: request(port, "POST", path, text)) or (None, None, None)
    return body if status in (200, 204) else None


def open_stream(port, headers=None, path="/stream"):
    """The response, and a function that reads it until a line."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECS)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    assert response.status == 200

    def read(wanted):
        while line := response.readline():
            if line.decode().strip() == wanted:
                return True
        return False

    return response, read


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
