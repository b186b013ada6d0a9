"""Servers with several workers under `tidings run`: each publishes, makes tickets and opens streams
on the one port, in one order."""

import itertools
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
from conftest import PROGRAM, until
from processes import PATIENCE_SECS, Running, request
from test_development import open_stream, tried

from tidings import Client

APPLICATIONS = Path(__file__).with_name("applications")
# More than the connections that the hub may have kept to workers which have answered.
REQUESTS_AT_A_TIME = 48

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

    numbers = itertools.count()

    def publish():
        number = next(numbers)
        return int(request(port, "POST", "/publish", str(number))[2]), number

    def ticket():
        answer = json.loads(request(port, "GET", "/ticket")[2])
        return answer["process"], answer["ticket"]

    published, tickets = {}, {}
    for process, number in of_each_worker(workers, publish):
        published.setdefault(process, []).append(number)
    for process, text in of_each_worker(workers, ticket):
        tickets[process] = text
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


def of_each_worker(workers, ask):
    """Asks until each worker has answered, and returns all answers. Those that have answered are stopped
    meanwhile: one worker may otherwise take all connections."""
    seen, answers = set(), []
    with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as threads:
        while len(seen) < workers:
            for process in seen:
                os.kill(process, signal.SIGSTOP)
            try:
                asked = [threads.submit(ask) for _ in range(REQUESTS_AT_A_TIME)]
                next(as_completed(asked, PATIENCE_SECS))
            finally:
                for process in seen:
                    os.kill(process, signal.SIGCONT)
            answers += [answer.result() for answer in asked]
            seen |= {process for process, _ in answers}
    return answers
