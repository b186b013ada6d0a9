"""The application's own route in each framework: behind a hub, and in production without one."""

import asyncio
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

import tidings
from tidings import _development, _own_route

sys.path.insert(0, str(Path(__file__).with_name("applications")))


@pytest.fixture(autouse=True)
def production(monkeypatch):
    monkeypatch.setattr(_development, "is_on", lambda: False)


def of_flask(path, headers):
    import flask_app

    response = flask_app.app.test_client().get(path, headers=headers)
    return response.status_code, response.headers, response.get_data(as_text=True)


def of_django(path, headers):
    import django_app  # noqa: F401
    from django.test import Client

    response = Client(headers=headers).get(path)
    return response.status_code, response.headers, response.content.decode()


def of_fastapi(path, headers):
    import fastapi_app

    async def get():
        sent = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            sent.append(message)

        await fastapi_app.app(scope, receive, send)
        return sent

    start, *body = asyncio.run(get())
    headers = {name.decode().title(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, b"".join(part.get("body", b"") for part in body).decode()


FRAMEWORKS = pytest.mark.parametrize("get", [of_flask, of_django, of_fastapi])


@FRAMEWORKS
def test_behind_a_hub_the_route_names_the_topics_and_is_done(get):
    status, headers, body = get("/stream", {"Tidings-Version": "0.1.0"})
    assert (status, body) == (200, "")
    assert parse_qsl(headers["Tidings-Subscribe"]) == [
        ("topic", "chat"),
        ("topic", "user-42"),
        ("since", "earliest"),
        ("label", "user-42"),
    ]


@FRAMEWORKS
def test_in_production_without_a_hub_in_front_the_answer_says_what_to_do(get, caplog):
    status, headers, body = get("/stream", {})
    assert status == 500
    assert "Tidings-Subscribe" not in headers
    for text in (body, caplog.text):
        assert "tidings run -- COMMAND" in text
        assert "--authorize" in text


class Endless:
    """A stream of the hub, which has no end by itself."""

    status = 200
    is_closed = False

    class response:
        @staticmethod
        def getheader(name):
            return "text/event-stream" if name == "Content-Type" else None

    def __iter__(self):
        while True:
            yield b": hb\n"

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_a_client_that_leaves_ends_the_stream_that_was_passed_on(framework, monkeypatch):
    import django_app  # noqa: F401
    import flask_app
    from django.test import Client

    stream = Endless()
    monkeypatch.setattr(_development, "is_on", lambda: True)
    monkeypatch.setattr(_own_route, "_open", lambda grant, last_id: stream)
    client = flask_app.app.test_client() if framework == "flask" else Client()
    response = client.get("/stream")
    body = response.response if framework == "flask" else response.streaming_content
    assert next(iter(body)) == b": hb\n"
    assert not stream.is_closed
    response.close()
    assert stream.is_closed


def test_what_users_choose_cannot_become_a_second_topic():
    header = tidings.subscribe_header("user-x&topic=user-1", patterns=["/a b/:c"], expires=60, hello=True)
    assert header == "topic=user-x%26topic%3Duser-1&pattern=%2Fa%20b%2F%3Ac&hello=true&expires=60"
    with pytest.raises(ValueError, match="needs a topic"):
        tidings.subscribe_header()


def test_the_stream_of_a_user_of_django_is_private_and_can_be_revoked():
    import django_app  # noqa: F401
    from django.test import RequestFactory

    import tidings.django
    from tidings.testing import record

    request = RequestFactory(headers={"Tidings-Version": "0.1.0"}).get("/user-stream")
    assert tidings.django.user_stream(request).status_code == 403
    request.user = type("User", (), {"is_authenticated": True, "pk": 42})()
    granted = parse_qsl(tidings.django.user_stream(request)["Tidings-Subscribe"])
    assert granted == [("topic", "user-42"), ("label", "user-42")]
    with record() as recorder:
        tidings.django.publish_to_user(request.user, {"unread": 3}, on_commit=False)
    assert (recorder[0].topics, recorder[0].private) == (["user-42"], True)
    request.user.is_authenticated = False
    assert tidings.django.user_stream(request).status_code == 403
