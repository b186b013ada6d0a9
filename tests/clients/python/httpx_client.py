"""httpx-sse leaves reconnecting to its caller: this loop is the one that its documentation describes."""

import time

import httpx
from httpx_sse import connect_sse
from report import PAUSE_SECS, URL, opened, report

last_event_id = ""
with httpx.Client(timeout=None) as client:
    while True:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", URL, headers=headers) as source:
                source.response.raise_for_status()
                opened()
                for event in source.iter_sse():
                    last_event_id = event.id
                    report(event.event, event.id, event.data)
        except httpx.TransportError:
            pass
        time.sleep(PAUSE_SECS)
