"""Real hubs for the tests: `TIDINGS_BIN` names the program."""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
from processes import PATIENCE_SECS

KEY = "a-key-of-the-tests-with-enough-characters"
TICKET_SECRET = "a ticket secret of the tests, long enough"
CONFIGURATION = """
private_topics = ["user-*"]
[[key]]
name = "tests"
secret_env = "KEY"
publish = ["*"]
subscribe = ["*"]
admin = true
[[ticket_secret]]
id = "1"
secret_env = "TICKET_SECRET"
"""
#: The programs of tests have working directories of their own.
PROGRAM = os.path.abspath(os.environ["TIDINGS_BIN"])
os.environ["TIDINGS_BIN"] = PROGRAM


class Hub:
    """A hub on a port of its own, which it keeps over restarts."""

    def __init__(self, directory: Path, *flags: str):
        self.directory, self.flags = directory, flags
        (directory / "tidings.toml").write_text(CONFIGURATION)
        self.port = 0
        self.start()

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        environment.update(KEY=KEY, TICKET_SECRET=TICKET_SECRET)
        configuration = str(self.directory / "tidings.toml")
        self.process = subprocess.Popen(
            [
                PROGRAM,
                "serve",
                "--listen",
                f"127.0.0.1:{self.port}",
                "--config",
                configuration,
                "--retry-millis",
                "100",
                *self.flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
        )
        printed = []
        for line in self.process.stdout:
            printed.append(line)
            address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if address:
                self.port = int(address.group(1))
                break
        else:
            raise AssertionError(f"the hub did not start: {''.join(printed)}")
        # It is read on, so that the hub never waits.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    @property
    def url(self):
        return f"http://:{KEY}@127.0.0.1:{self.port}"

    @property
    def variables(self):
        return {"TIDINGS_URL": self.url, "TIDINGS_TICKET_SECRET": f"1:{TICKET_SECRET}"}

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """One hub for all tests that do not stop it; their topics differ."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    yield hub
    hub.stop()


@pytest.fixture
def own_hub(tmp_path):
    """A hub that the test may stop, with its events in files."""
    hub = Hub(tmp_path, "--store", str(tmp_path / "events"))
    yield hub
    hub.stop()


@pytest.fixture(autouse=True)
def no_hub_in_environment(monkeypatch):
    """A test that wants a hub says which."""
    for name in ("TIDINGS_URL", "TIDINGS_TOKEN", "TIDINGS_TICKET_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDINGS_DEV", "0")


@pytest.fixture
def environment(hub, monkeypatch):
    """The functions of the module use the hub of the tests."""
    for name, value in hub.variables.items():
        monkeypatch.setenv(name, value)


def until(what, condition):
    """Waits until the condition is truthy, and returns its value."""
    deadline = time.monotonic() + PATIENCE_SECS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECS} s for {what}"
        time.sleep(0.02)
