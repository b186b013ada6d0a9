"""Every client in this folder prints what it receives, one line of JSON per event, and runs until it is killed:
`python client.py URL`."""

import json
import sys

URL = sys.argv[1]

# The delay of the callers' reconnect loops.
PAUSE_SECS = 0.2


def report(kind, event_id, data):
    print(json.dumps({"type": kind or "message", "id": event_id, "data": data}), flush=True)


def opened():
    print(json.dumps({"open": True}), flush=True)
