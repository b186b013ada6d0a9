"""requests-sse reconnects by itself, waiting twice as long each time."""

from datetime import timedelta

from report import PAUSE_SECS, URL, opened, report
from requests_sse import EventSource

with EventSource(URL, reconnection_time=timedelta(seconds=PAUSE_SECS), on_open=opened) as source:
    for event in source:
        report(event.type, event.last_event_id, event.data)
