"""Publishes with pymercure and prints the id: `python pymercure_publisher.py HUB TOKEN DATA TOPIC…`."""

import sys

from pymercure.message import Message
from pymercure.publisher.sync import SyncPublisher

hub, token, data, *topics = sys.argv[1:]
print(SyncPublisher(hub, token).publish(Message(topics, data, event_type="note")))
