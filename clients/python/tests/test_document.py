"""What docs/python.md says, run from the document itself."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from conftest import until
from processes import request
from test_development import answered, free_port, open_stream, project  # noqa: F401 (a fixture)

import tidings
from tidings import Event
from tidings.testing import record

DOCUMENT = (Path(__file__).parents[3] / "docs/python.md").read_text()


def block(words, language="python"):
    """The first block of code in this language after these words."""
    _, found, rest = DOCUMENT.partition(words)
    assert found, f"docs/python.md does not say {words!r}"
    return re.search(rf"^```{language}\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL).group(1)


def run(words, **names):
    names["tidings"] = tidings
    exec(block(words), names)  # noqa: S102
    return names


def test_publishing(environment):
    run("# Python")
    run("keeps its connections open")
    assert tidings._background.flush(20)
    names = run("## Tickets and revocation")
    assert names["ticket"].startswith("tt1.1.")


def test_receiving(environment):
    class Enough(Exception):
        pass

    printed = []

    def show(*values):
        printed.append(values)
        raise Enough

    receipt = tidings.publish("chat", "the newest")
    with pytest.raises(Enough):
        run("## Receiving", print=show)
    assert printed[0][0] is not None
    last = next(event for event in tidings.subscribe("chat", since="-1") if isinstance(event, Event))
    assert last.id == receipt.id


def test_html(monkeypatch):
    class Flask:
        @staticmethod
        def render_template(_, order):
            return f"<li>{order}</li>"

    with record() as recorder:
        run("## HTML instead of JavaScript", flask=Flask, order=17)
    assert recorder.on("orders")[0].data.startswith('<turbo-stream action="append" target="orders">')


def test_testing():
    class Client:
        @staticmethod
        def post(path):
            tidings.publish(path[1:], {"id": 1})

    run("## Testing")["test_an_order_is_announced"](Client)


def test_django():
    sys.path.insert(0, str(Path(__file__).with_name("applications")))
    import django_app
    from django.http import HttpResponse
    from django.template import engines
    from django.test import RequestFactory
    from django.urls import path

    of_user = RequestFactory().get("/stream")
    of_user.user = type("User", (), {"is_authenticated": True, "pk": 42})()
    with record() as recorder:
        names = run("## Django", path=path, user=of_user.user)
        response = names["urlpatterns"][0].callback(of_user)
        assert parse_qs(response["Tidings-Subscribe"])["topic"] == ["user-42"]
        names = run("For other topics write the view yourself", HttpResponse=HttpResponse)
        response = names["chat_stream"](of_user)
        names["say"]("hello")
    assert parse_qs(response["Tidings-Subscribe"]) == {"topic": ["chat", "user-42"]}
    assert [(event.topics, event.data) for event in recorder] == [
        (["user-42"], '{"unread":3}'),
        (["chat"], "hello"),
    ]
    of_user.user.is_authenticated = False
    assert names["chat_stream"](of_user).status_code == 403
    assert django_app.urlpatterns
    page = engines["django"].from_string(block("## Django", "html")).render()
    assert 'const events = new EventSource("/stream");' in page


def test_flask_in_development(project):  # noqa: F811
    (project.directory / "flask_chat.py").write_text(block("## Flask"))
    command = block("In development this is all", "sh").strip()
    assert command == "flask --app flask_chat run"
    port = free_port()
    project.variables["TIDINGS_DEV"] = ""
    project.start([script("flask"), *command.split()[1:], "--port", str(port)])
    until("the server", lambda: is_there(port))
    status, headers, _ = until("a login", lambda: get(port, "/login/42"))
    cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    assert status == 302
    assert get(port, "/stream")[0] == 403
    _, read = open_stream(port, cookie)
    assert answered(port, "for another", "/notify/43") is not None
    assert answered(port, "for this user", "/notify/42") is not None
    assert read("data: for this user")


def test_fastapi_in_development(project):  # noqa: F811
    (project.directory / "fastapi_chat.py").write_text(block("## FastAPI"))
    port = free_port()
    project.variables["TIDINGS_DEV"] = ""
    project.start([script("uvicorn"), "--reload", "fastapi_chat:app", "--port", str(port)])
    until("the server", lambda: is_there(port))
    _, read = open_stream(port)
    assert answered(port, "hello", "/say")
    assert read("data: hello")


def script(name):
    return os.path.join(os.path.dirname(sys.executable), name)


def get(port, path):
    return request(port, "GET", path)


def is_there(port):
    try:
        return get(port, "/")
    except OSError:
        return None
