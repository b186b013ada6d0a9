"""The background mode: nothing waits, nothing fails, and what is dropped is counted and logged."""

import logging
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from conftest import until
from processes import PATIENCE_SECS
from servers import answer, scripted

import tidings
from tidings import Background, Client

PUBLISHED = answer("200 OK", b'{"events":[{"id":"#1"}]}')


def test_events_are_sent_in_order(hub):
    of = uuid.uuid4().hex
    client = Client(hub.url)
    background = Background(client)
    with client.subscribe(of, since="earliest") as received:
        assert all(background.publish(of, str(number)) for number in range(300))
        assert [next(received).data for _ in range(300)] == [str(number) for number in range(300)]
    assert background.flush(20)
    assert background.dropped == 0


def test_an_event_that_is_refused_takes_no_other_along(hub, caplog):
    of = uuid.uuid4().hex
    client = Client(hub.url)
    background = Background(client)
    for number in range(4):
        background.publish(of, str(number), type="tidings" if number == 2 else "note")
    assert background.flush(20)
    assert background.dropped == 1
    with client.subscribe(of, since="earliest") as received:
        assert [next(received).data for _ in range(3)] == ["0", "1", "3"]
    assert "1 events were dropped, 1 so far: the hub answered 400" in caplog.text


def test_a_full_queue_drops_at_once(caplog):
    released = threading.Event()
    with scripted(*[PUBLISHED] * 9) as server:
        serve = server._serve
        server._serve = lambda connection: (released.wait(), serve(connection))
        background = Background(Client(server.url, timeout=20), events_max=3)
        assert [background.publish("chat", str(number)) for number in range(5)] == [True] * 3 + [False] * 2
        assert not background.flush(0)
        released.set()
        assert background.flush(20)
    assert background.dropped == 2
    assert "1 events were dropped, 1 so far: the queue is full" in caplog.text
    background.close(0)


def test_a_hub_that_is_away_for_a_moment_loses_nothing(own_hub):
    background = Background(Client(own_hub.url, timeout=0.2))
    own_hub.stop()
    assert background.publish("chat", "while it is away")
    own_hub.start()
    assert background.flush(20)
    with Client(own_hub.url).subscribe("chat", since="earliest") as received:
        assert next(received).data == "while it is away"
    assert background.dropped == 0


def test_data_that_cannot_be_sent_raises_where_the_mistake_is():
    with pytest.raises(TypeError):
        Background(Client("http://127.0.0.1:9")).publish("chat", object())


def test_without_a_hub_events_are_dropped_and_the_log_says_why(caplog):
    background = Background()
    assert background.publish("chat", "hello")
    assert background.flush(20)
    assert background.dropped == 1
    assert "no hub is configured" in caplog.text


def test_after_it_was_closed_nothing_is_accepted():
    background = Background(Client("http://127.0.0.1:9"))
    background.close(0)
    assert background.publish("chat", "hello") is False
    assert background.dropped == 1


def test_the_exit_of_a_process_sends_what_is_queued(hub):
    of = uuid.uuid4().hex
    code = f"import tidings\nfor n in range(50): tidings.publish_in_background('{of}', str(n))"
    python_path = os.fspath(Path(tidings.__file__).parents[1])
    variables = {**os.environ, **hub.variables, "PYTHONPATH": python_path}
    subprocess.run([sys.executable, "-c", code], env=variables, check=True, timeout=PATIENCE_SECS)
    with Client(hub.url).subscribe(of, since="earliest") as received:
        assert [next(received).data for _ in range(50)] == [str(number) for number in range(50)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_sends_its_own_events_only(hub):
    of = uuid.uuid4().hex
    background = Background(Client(hub.url))
    background.publish(of, "parent")
    assert background.flush(20)
    child = os.fork()
    if child == 0:
        try:
            background.publish(of, "child")
            os._exit(0 if background.flush(20) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with Client(hub.url).subscribe(of, since="earliest") as received:
        assert [next(received).data for _ in range(2)] == ["parent", "child"]


def test_dropped_events_are_logged_together(caplog):
    caplog.set_level(logging.WARNING)
    background = Background(Client("http://127.0.0.1:9"), events_max=0)
    for _ in range(5):
        background.publish("chat", "hello")
    assert len(caplog.records) == 1
    background.close(0)
    until("the rest in one line", lambda: "4 events were dropped, 5 so far" in caplog.text)
