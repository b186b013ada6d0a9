"""Publishes with mercure-publisher, which makes its tokens itself, and prints the id:
`python mercure_publisher_publisher.py HUB KEY DATA TOPIC…`."""

import sys

from mercure_publisher import MercureConfig, MercurePublisher

hub, key, data, *topics = sys.argv[1:]
with MercurePublisher(MercureConfig(hub_url=hub, publisher_jwt_key=key, publish_topics=["*"])) as publisher:
    print(publisher.publish(topics, data, private=True, type="note"))
