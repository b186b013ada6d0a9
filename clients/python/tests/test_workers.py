"""Servers with several workers: each publishes, makes tickets and answers the route of a stream,
and there is one order."""

import json
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from conftest import until
from processes import Running, python, request
from test_development import free_port

from tidings import Client

APPLICATIONS = Path(__file__).with_name("applications")
REQUESTS_MAX = 2000

SERVERS = {
    "gunicorn with Flask": (4, ["-m", "gunicorn", "flask_app:app", "--workers", "4", "--bind"]),
    "gunicorn that forks with Flask": (
        4,
        ["-m", "gunicorn", "flask_app:app", "--preload", "--workers", "4", "--bind"],
    ),
    "gunicorn with Django": (4, ["-m", "gunicorn", "django_app:application", "--workers", "4", "--bind"]),
    "uvicorn with FastAPI": (2, ["-m", "uvicorn", "fastapi_app:app", "--workers", "2", "--port"]),
}


@pytest.fixture(params=SERVERS)
def server(request, own_hub):
    workers, arguments = SERVERS[request.param]
    port = free_port()
    address = str(port) if arguments[-1] == "--port" else f"127.0.0.1:{port}"
    running = Running(python(*arguments, address), APPLICATIONS, {**own_hub.variables, "DEBUG": "0"})
    yield workers, port
    running.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_every_worker_publishes_and_grants_in_one_order(server, own_hub):
    workers, port = server
    until("the server", lambda: is_there(port))

    # Requests reach the workers at random: each must have been seen with everything.
    published = {}
    numbers = iter(range(REQUESTS_MAX))
    while len(published) < workers:
        number = next(numbers)
        process = request(port, "POST", "/publish", str(number))[2]
        published.setdefault(int(process), []).append(number)
    tickets = {}
    while len(tickets) < workers:
        next(numbers)
        answer = json.loads(request(port, "GET", "/ticket")[2])
        tickets[answer["process"]] = answer["ticket"]
    assert tickets.keys() == published.keys()

    sent = sorted(number for numbers in published.values() for number in numbers)
    orders = []
    for ticket in tickets.values():
        bearer = Client(f"http://127.0.0.1:{own_hub.port}", token=ticket)
        with bearer.subscribe("user-42", since="earliest") as received:
            orders.append([(event.id, int(event.data)) for event in (next(received) for _ in sent)])
    assert [number for _, number in orders[0]] == sent
    assert all(order == orders[0] for order in orders)

    status, headers, _ = request(port, "GET", "/stream", headers={"Tidings-Version": "0.1.0"})
    assert (status, parse_qs(headers["Tidings-Subscribe"])["topic"]) == (200, ["chat", "user-42"])


def is_there(port):
    try:
        return request(port, "GET", "/ticket")[0] == 200
    except OSError:
        return False
