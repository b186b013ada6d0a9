"""sseclient-py parses the response that its caller brings: reconnecting is the caller's."""

import time

import requests
import sseclient
from report import PAUSE_SECS, URL, opened, report

last_event_id = ""
while True:
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    try:
        response = requests.get(URL, stream=True, headers=headers, timeout=None)
        response.raise_for_status()
        opened()
        for event in sseclient.SSEClient(response).events():
            last_event_id = event.id
            report(event.event, event.id, event.data)
    except requests.RequestException:
        pass
    time.sleep(PAUSE_SECS)
