"""Tickets: made offline like the hub's own, made by the hub, and what they open."""

import json
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import TICKET_SECRET
from servers import scripted

import tidings
from tidings import Client, ConfigurationError, Refused
from tidings._tickets import sign

VECTORS = json.loads((Path(__file__).parents[3] / "tests/tickets/vectors.json").read_text())
SECRETS = {secret["id"]: secret["secret"] for secret in VECTORS["secrets"]}


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["name"])
def test_a_ticket_is_that_of_the_test_vectors(vector):
    assert sign(vector["secret_id"], SECRETS[vector["secret_id"]], vector["contents"]) == vector["ticket"]


def offline_and_by_the_hub(hub):
    return [Client(hub.url, ticket_secret=f"1:{TICKET_SECRET}"), Client(hub.url)]


@pytest.mark.parametrize("place", [0, 1], ids=["offline", "by the hub"])
def test_a_ticket_opens_the_streams_of_its_topics_alone(hub, place):
    user = f"user-{uuid.uuid4().hex}"
    ticket = offline_and_by_the_hub(hub)[place].ticket(
        user, patterns=["/rooms/:room"], label=user, expires=timedelta(minutes=5), streams_max=4
    )
    Client(hub.url).publish(user, "private", private=True)
    bearer = Client(f"http://127.0.0.1:{hub.port}", token=ticket)
    with bearer.subscribe(user, since="earliest") as received:
        assert next(received).data == "private"
    with pytest.raises(Refused):
        next(bearer.subscribe("user-of-another"))


def test_a_revoked_label_ends_its_streams_and_refuses_its_tickets(hub):
    user = f"user-{uuid.uuid4().hex}"
    ticket = Client(hub.url, ticket_secret=f"1:{TICKET_SECRET}").ticket(user, label=user)
    bearer = Client(f"http://127.0.0.1:{hub.port}", token=ticket)
    Client(hub.url).publish(user, "private", private=True)
    received = bearer.subscribe(user, since="earliest")
    assert next(received).data == "private"
    Client(hub.url).revoke(label=user)
    with pytest.raises(Refused) as raised:
        next(received)
    assert raised.value.status == 401


def test_a_ticket_with_a_secret_needs_no_request():
    with scripted() as server:
        assert Client(server.url, ticket_secret="1:secret").ticket("chat").startswith("tt1.1.")
    assert server.connections == 0


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"topics": []}, "a topic or a pattern"),
        ({"topics": "a", "expires": 0}, "1 to 86400 seconds, not 0"),
        ({"topics": "a", "expires": timedelta(days=2)}, "not 172800"),
        ({"topics": "a", "label": ""}, "1 to 256 bytes"),
    ],
)
def test_terms_that_no_hub_accepts_raise(terms, reason):
    with pytest.raises(ValueError, match=reason):
        Client("http://127.0.0.1:9", ticket_secret="1:secret").ticket(**terms)


def test_a_malformed_secret_is_not_shown():
    with pytest.raises(ConfigurationError, match="ID:SECRET") as raised:
        Client("http://127.0.0.1:9", ticket_secret="only-the-secret").ticket("chat")
    assert "only-the-secret" not in str(raised.value)


def test_the_functions_of_the_module(environment):
    assert tidings.ticket("chat", label="me").startswith("tt1.1.")
    tidings.revoke(label="somebody")
