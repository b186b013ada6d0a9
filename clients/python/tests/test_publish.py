"""Publishing: against a real hub, and against servers that fail in the middle."""

import os
import threading
import uuid

import pytest
from servers import answer, scripted

import tidings
from tidings import Client, NewEvent, Refused, Unavailable

PUBLISHED = answer("200 OK", b'{"events":[{"id":"#1"}]}')


def topic():
    return f"topic-{uuid.uuid4().hex}"


def history(client, of):
    """The events on a topic so far."""
    end = client.publish(of, "the end")
    events = []
    with client.subscribe(of, since="earliest") as received:
        for event in received:
            if event.id == end.id:
                return events
            events.append(event)
    return events


@pytest.fixture
def client(hub):
    with Client(hub.url) as client:
        yield client


@pytest.mark.parametrize(
    ("data", "received"),
    [
        ("grüße 🗞️\nsecond line", "grüße 🗞️\nsecond line"),
        ("grüße".encode(), "grüße"),
        ("", ""),
        ({"unread": 3, "name": "Zoë"}, '{"unread":3,"name":"Zoë"}'),
        ([1, None, 2.5], "[1,null,2.5]"),
        (7, "7"),
    ],
)
def test_data_arrives_as_text_or_as_json(client, data, received):
    of = topic()
    receipt = client.publish(of, data)
    [event] = history(client, of)
    assert (event.data, event.id, event.topic, event.type) == (received, receipt.id, of, "message")


def test_every_option_arrives(client):
    first, second = topic(), topic()
    client.publish([first, second], {"a": 1}, type="note", id=f"own-{first}", private=True, retry=2000)
    [event] = history(client, second)
    assert (event.type, event.id, event.topic, event.json()) == ("note", f"own-{first}", first, {"a": 1})


@pytest.mark.parametrize("of", ["a/b?c#d&e=%20", "https://example.com/orders/7", "..", "grüße 🗞️"])
def test_a_topic_may_be_any_text(client, of):
    client.publish(of, "hello")
    assert history(client, of)[-1].data == "hello"


def test_data_that_is_no_text_and_no_json_is_a_mistake_of_the_caller(client):
    with pytest.raises(TypeError):
        client.publish("chat", object())
    with pytest.raises(ValueError):
        client.publish("chat", float("nan"))
    with pytest.raises(ValueError):
        client.publish("chat", b"\xff")
    with pytest.raises(TypeError, match="a topic is a text"):
        client.publish(["chat", 7], "hello")


def test_many_events_are_published_in_order_or_not_at_all(client):
    of = topic()
    receipts = client.publish_many([(of, "1"), NewEvent(of, {"n": 2}, type="note")])
    with pytest.raises(Refused, match="Line 2"):
        client.publish_many([(of, "3"), NewEvent(of, "4", type="tidings")])
    events = history(client, of)
    assert [event.data for event in events] == ["1", '{"n":2}']
    assert [event.id for event in events] == [receipt.id for receipt in receipts]
    assert client.publish_many([]) == []


def test_a_refusal_says_why(client, hub):
    with pytest.raises(Refused) as raised:
        client.publish("chat", "hello", type="tidings")
    assert raised.value.status == 400
    assert not raised.value.detail.startswith("Line")
    wrong = f"http://:wrong-key-wrong-key-wrong-key@127.0.0.1:{hub.port}"
    with pytest.raises(Refused) as raised:
        Client(wrong).publish("chat", "hello")
    assert raised.value.status == 401
    assert "wrong-key" not in str(raised.value)


def test_an_idempotency_key_publishes_once(client):
    of = topic()
    key = uuid.uuid4().hex
    first = client.publish(of, "hello", idempotency_key=key)
    second = client.publish(of, "hello", idempotency_key=key)
    assert (first.duplicate, second.duplicate, first.id == second.id) == (False, True, True)
    assert len(history(client, of)) == 1


def test_an_unanswered_publication_is_repeated_with_its_key():
    with scripted(None, answer("503 Service Unavailable", b"{}"), PUBLISHED) as server:
        assert Client(server.url).publish("chat", "hello").id == "#1"
    assert len(server.keys()) == 3
    assert len(set(server.keys())) == 1
    assert len({request["body"] for request in server.requests}) == 1


def test_every_publication_has_a_key_of_its_own():
    with scripted(PUBLISHED, PUBLISHED) as server, Client(server.url) as client:
        client.publish("chat", "hello")
        client.publish("chat", "hello")
    assert len(set(server.keys())) == 2
    assert server.connections == 1


def test_a_connection_that_was_closed_while_idle_is_replaced():
    with scripted(PUBLISHED, None, PUBLISHED) as server, Client(server.url) as client:
        client.publish("chat", "1")
        client.publish("chat", "2")
    assert [request["line"] for request in server.requests] == ["POST /topics HTTP/1.1"] * 3
    assert server.keys()[1] == server.keys()[2]


def test_an_ephemeral_event_is_received_live_and_by_nobody_later(client):
    of = topic()
    client.publish(of, "first")
    with client.subscribe(of, since="earliest") as received:
        first = next(received)
        receipt = client.publish(of, "Ann", type="typing", ephemeral=True)
        typing = next(received)
    assert receipt.id is None
    assert (typing.data, typing.type, typing.id) == ("Ann", "typing", first.id)
    assert [event.data for event in history(client, of)] == ["first"]


def test_ephemeral_events_alone_have_no_key_and_are_not_repeated():
    events = [NewEvent("chat", "Ann", ephemeral=True), NewEvent("chat", "hello")]
    with scripted(None, PUBLISHED, PUBLISHED) as server:
        client = Client(server.url, timeout=20)
        with pytest.raises(Unavailable) as raised:
            client.publish_many(events[:1])
        client.publish_many(events)
    assert raised.value.outcome_unknown is True
    assert ["idempotency-key" in request["headers"] for request in server.requests] == [False, True]
    assert b'"ephemeral":true' in server.requests[0]["body"]


def test_a_refusal_is_not_repeated():
    refusal = answer("403 Forbidden", b'{"detail":"No."}')
    with scripted(refusal) as server, pytest.raises(Refused, match="the hub answered 403: No."):
        Client(server.url).publish("chat", "hello")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("script", "outcome_unknown"),
    [
        ([None] * 20, True),
        (
            [answer("503 Service Unavailable", b'{"detail":"Nothing was published."}', "Retry-After: 9")],
            False,
        ),
        ([answer("507 Insufficient Storage", b'{"detail":"Full."}')], False),
        ([answer("504 Gateway Timeout")], True),
        ([answer("200 OK", b"<html>")], True),
    ],
)
def test_a_failure_says_whether_the_event_may_have_been_published(script, outcome_unknown):
    with scripted(*script) as server, pytest.raises(Unavailable) as raised:
        Client(server.url, timeout=0.2).publish("chat", "hello")
    assert raised.value.outcome_unknown is outcome_unknown


def test_a_hub_that_is_not_there_is_an_error_within_the_time():
    with scripted() as server:
        pass
    with pytest.raises(Unavailable, match="cannot be reached") as raised:
        Client(server.url, timeout=0.2).publish("chat", "hello")
    assert raised.value.outcome_unknown is False


def test_a_hub_that_never_answers_is_an_error_within_the_time():
    silent = threading.Event()
    with scripted() as server:
        server._serve = lambda connection: silent.wait()
        with pytest.raises(Unavailable) as raised:
            Client(server.url, timeout=0.2).publish("chat", "hello")
        silent.set()
    assert raised.value.outcome_unknown is True


def test_threads_share_a_client(client):
    of = topic()

    def publish(thread):
        for number in range(20):
            client.publish(of, f"{thread} {number}")

    threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = [event.data.split() for event in history(client, of)]
    assert len(events) == 160
    for thread in range(8):
        assert [int(number) for of, number in events if of == str(thread)] == list(range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_never_uses_the_connections_of_its_parent():
    with scripted(PUBLISHED, PUBLISHED, PUBLISHED) as server, Client(server.url) as client:
        client.publish("chat", "parent")
        child = os.fork()
        if child == 0:
            try:
                client.publish("chat", "child")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.publish("chat", "parent")
    assert server.connections == 2


def test_the_functions_of_the_module_use_the_hub_of_the_environment(environment):
    of = topic()
    tidings.publish(of, "1")
    tidings.broadcast(of, "<li>2</li>")
    tidings.broadcast(of, "<li>3</li>", target='"<list>', action="prepend")
    tidings.publish_many([(of, "4")])
    events = history(tidings._client, of)
    turbo = '<turbo-stream action="prepend" target="&quot;&lt;list&gt;"><template><li>3</li></template></turbo-stream>'
    assert [event.data for event in events] == ["1", "<li>2</li>", turbo, "4"]
