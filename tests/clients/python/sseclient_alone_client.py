"""sseclient reconnects by itself after a clean end; after a cut its caller opens it again. It prints
what ended a connection."""

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

# It is imported by the same name as sseclient-py.
sys.path.insert(0, str(Path(__file__).parents[2] / ".cache/apart/sseclient"))

import sseclient
from report import PAUSE_SECS, URL, opened, report

last_id = None
while True:
    try:
        client = sseclient.SSEClient(URL, last_id=last_id)
        opened()
        while True:
            with redirect_stdout(sys.stderr):
                event = next(client)
            last_id = client.last_id
            report(event.event, event.id, event.data)
    except OSError:
        time.sleep(PAUSE_SECS)
