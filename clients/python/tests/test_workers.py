"""Servers with several workers under `tidings run`: each publishes, makes tickets and opens streams
on the one port, in one order."""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PROGRAM, until
from processes import Running, request
from test_development import open_stream, tried

from tidings import Client

APPLICATIONS = Path(__file__).with_name("applications")
REQUESTS_MAX = 400

SERVERS = {
    "gunicorn with Flask": (4, "gunicorn flask_app:app --workers 4"),
    "gunicorn that forks with Flask": (4, "gunicorn flask_app:app --preload --workers 4"),
    "gunicorn with Django": (4, "gunicorn django_app:application --workers 4"),
    "uvicorn with FastAPI": (2, "uvicorn fastapi_app:app --workers 2 --port $PORT"),
}


@pytest.fixture(params=SERVERS)
def server(request):
    workers, command = SERVERS[request.param]
    shell = ["sh", "-c", f"exec {sys.executable} -m {command}"]
    running = Running([PROGRAM, "run", "--listen", "127.0.0.1:0", "--", *shell], APPLICATIONS, {"DEBUG": "0"})
    try:
        yield workers, int(running.match(r"127\.0\.0\.1:(\d+)").group(1))
    finally:
        # The processes of the application are a group of their own, which the hub ends.
        running.kill(signal.SIGTERM)


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_every_worker_publishes_and_grants_in_one_order(server):
    workers, port = server
    until("the application", lambda: (tried(lambda: request(port, "GET", "/ticket")) or [0])[0] == 200)

    # The hub keeps connections to workers, so that requests reach all of them when several are under way.
    published, tickets = {}, {}
    with ThreadPoolExecutor(4 * workers) as threads:
        for first in range(0, REQUESTS_MAX, 4 * workers):
            numbers = range(first, first + 4 * workers)
            processes = threads.map(lambda number: request(port, "POST", "/publish", str(number))[2], numbers)
            for number, process in zip(numbers, processes):
                published.setdefault(int(process), []).append(number)
            for answer in threads.map(lambda _: json.loads(request(port, "GET", "/ticket")[2]), numbers):
                tickets[answer["process"]] = answer["ticket"]
            if len(published) == len(tickets) == workers:
                break
    assert len(published) == workers
    assert tickets.keys() == published.keys()

    sent = sorted(number for numbers in published.values() for number in numbers)
    orders = []
    for ticket in tickets.values():
        bearer = Client(f"http://127.0.0.1:{port}", token=ticket)
        with bearer.subscribe("user-42", since="earliest") as received:
            orders.append([(event.id, int(event.data)) for event in (next(received) for _ in sent)])
    assert sorted(number for _, number in orders[0]) == sent
    assert all(order == orders[0] for order in orders)

    # The route of the application: as many as reach every worker, by all odds.
    for _ in range(4 * workers):
        response, read = open_stream(port)
        assert response.getheader("Content-Type").startswith("text/event-stream")
        assert all(read(f"data: {number}") for _, number in orders[0])
