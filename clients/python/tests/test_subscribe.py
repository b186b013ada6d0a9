"""Subscribing: one order over any number of connections, and gaps as objects."""

import threading
import uuid

import pytest
from servers import Cutter, answer, scripted

from tidings import Client, Event, Gap, Refused
from tidings._sse import Message, Parser


def test_a_subscription_resumes_over_cuts_without_loss_or_repeat(hub):
    of = uuid.uuid4().hex
    client = Client(hub.url)
    cutter = Cutter(hub.port)
    through = Client(hub.url.replace(str(hub.port), str(cutter.port)))
    with through.subscribe(of, since="earliest") as received:
        for number in range(6):
            client.publish(of, str(number))
            event = next(received)
            assert isinstance(event, Event)
            assert event.data == str(number)
            cutter.cut()
            client.publish(of, f"{number} while cut")
            assert next(received).data == f"{number} while cut"
        assert received.last_id == client.publish(of, "last").id or next(received).data == "last"


def test_a_subscription_survives_a_hub_that_restarts(own_hub):
    client = Client(own_hub.url)
    with client.subscribe("chat", since="earliest") as received:
        client.publish("chat", "before")
        assert next(received).data == "before"
        own_hub.stop()
        own_hub.start()
        client.publish("chat", "after")
        assert next(received).data == "after"


def test_a_gap_is_an_object_and_the_stream_goes_on(hub):
    of = uuid.uuid4().hex
    client = Client(hub.url)
    first = client.publish(of, "before")
    client.publish(f"{of}-else", "later")
    # The place of another log.
    with client.subscribe(of, since="id:an id that the hub does not know") as received:
        gap = next(received)
        assert isinstance(gap, Gap)
        assert gap.reason == "unknown"
        assert next(received).id == first.id


def test_a_private_topic_and_a_pattern(hub):
    client = Client(hub.url)
    user = f"user-{uuid.uuid4().hex}"
    with client.subscribe(user, patterns=["/rooms/:room"], since="earliest") as received:
        client.publish(user, "private", private=True)
        assert next(received).data == "private"
        room = f"/rooms/{uuid.uuid4().hex}"
        client.publish(room, "in the room")
        assert next(event for event in received if event.topic == room).data == "in the room"


def test_closing_ends_an_iteration_that_waits(hub):
    received = Client(hub.url).subscribe(uuid.uuid4().hex)
    ended = threading.Event()

    def iterate():
        assert list(received) == []
        ended.set()

    thread = threading.Thread(target=iterate)
    thread.start()
    while received._stream is None and thread.is_alive():
        pass
    received.close()
    assert ended.wait(20)


def test_a_subscription_that_is_refused_raises(hub):
    with pytest.raises(Refused) as raised:
        next(Client(f"http://127.0.0.1:{hub.port}").subscribe("user-42"))
    assert raised.value.status in (401, 403)
    with pytest.raises(Refused, match="since"):
        next(Client(hub.url).subscribe("chat", since="yesterday"))
    with pytest.raises(ValueError, match="needs a topic"):
        Client(hub.url).subscribe()


def test_a_hub_that_is_overloaded_is_asked_again():
    stream = answer(
        "200 OK", b'retry: 1\nid: #1\ndata: {"topic":"a","id":"#1","type":"t","time":"","data":"d"}\n\n'
    )
    with scripted(answer("503 Service Unavailable"), stream) as server:
        received = Client(server.url).subscribe("a", since="-5")
        assert next(received).data == "d"
        received.close()
    assert [request["headers"].get("last-event-id") for request in server.requests] == [None, None]
    assert all("since=-5" in request["line"] for request in server.requests)


def test_the_parser_does_not_depend_on_how_bytes_arrive():
    stream = (
        b"\xef\xbb\xbf: comment\r\nretry: 20\rid: 1\ndata: gr\xc3\xbc\xc3\x9fe\r\ndata\ndata:  two\r\n\r\n"
        b"event: note\ndata:\n\nid: 2\0\ndata: kept\n\nid\ndata: none\n\nevent: lost\n\ndata: incomplete"
    )
    expected = [
        Message("message", "grüße\n\n two"),
        Message("note", ""),
        Message("message", "kept"),
        Message("message", "none"),
    ]
    for size in (1, 2, 3, 7, len(stream)):
        parser = Parser()
        parts = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [message for part in parts for message in parser.feed(part)] == expected
        assert (parser.retry_millis, parser.last_id) == (20, "")
