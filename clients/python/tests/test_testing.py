"""`tidings.testing`: what an application published, without a hub."""

import asyncio
import sys
from pathlib import Path

import pytest

import tidings
from tidings import Client, NewEvent
from tidings._pytest import published  # noqa: F401 (a fixture)
from tidings.testing import record

sys.path.insert(0, str(Path(__file__).with_name("applications")))


def test_every_way_to_publish_is_recorded_in_order():
    with record() as recorder:
        receipt = tidings.publish("a", {"n": 1}, type="note", private=True)
        tidings.publish_many([("b", "2"), NewEvent(["c", "d"], b"3", id="own")])
        Client("http://127.0.0.1:9").publish("e", "4")
        assert tidings.publish_in_background("f", "5")
        asyncio.run(tidings.apublish("g", "6"))
        tidings.broadcast("h", "<li>7</li>")
    assert [event.data for event in recorder] == ['{"n":1}', "2", "3", "4", "5", "6", "<li>7</li>"]
    assert (recorder[0].json(), recorder[0].type, recorder[0].private) == ({"n": 1}, "note", True)
    assert recorder.on("d") == [recorder[2]]
    assert recorder[2].topics == ["c", "d"]
    assert receipt.id == "#recorded-1"


def test_a_recorder_records_until_its_end_alone():
    with record() as outer:
        tidings.publish("a", "1")
        with record() as inner:
            tidings.publish("a", "2")
        tidings.publish("a", "3")
    assert [event.data for event in outer] == ["1", "3"]
    assert [event.data for event in inner] == ["2"]
    with pytest.raises(tidings.ConfigurationError):
        tidings.publish("a", "4")


def test_the_fixture_of_pytest(published):  # noqa: F811
    tidings.publish("a", "1")
    assert len(published) == 1


def test_the_route_of_a_stream_answers_as_behind_a_hub():
    import flask_app

    with record() as recorder:
        client = flask_app.app.test_client()
        assert "topic=user-42" in client.get("/stream").headers["Tidings-Subscribe"]
        assert client.post("/publish", data="hello").status_code == 200
    assert recorder[0].data == "hello"


def test_mistakes_are_found_without_a_hub():
    with record(), pytest.raises(TypeError):
        tidings.publish("a", object())


class TestDjango:
    """In a `TestCase` the outermost transaction is rolled back, so that nothing is ever committed."""

    @pytest.fixture(autouse=True)
    def transaction_of_a_test_case(self):
        import django_app  # noqa: F401
        from django.test import TestCase

        TestCase.setUpClass()
        case = TestCase()
        case._fixture_setup()
        yield
        case._fixture_teardown()
        TestCase.tearDownClass()

    def test_what_would_be_published_on_commit_counts(self):
        from django.db import transaction

        import tidings.django

        with record() as recorder:
            with transaction.atomic():
                tidings.django.publish("a", "committed")
                assert list(recorder) == []
            with pytest.raises(RuntimeError), transaction.atomic():
                tidings.django.publish("a", "rolled back")
                raise RuntimeError
            assert [event.data for event in recorder] == ["committed"]
            tidings.django.publish("a", "at once", on_commit=False)
        with record() as later:
            assert list(later) == []

    def test_a_commit_publishes_in_order(self):
        from django.test import TestCase

        import tidings.django

        with record() as recorder, TestCase.captureOnCommitCallbacks(execute=True):
            tidings.django.publish("a", "1")
            tidings.django.broadcast("a", "<li>2</li>", target="list")
        assert [event.data.count("<") for event in recorder] == [0, 6]
