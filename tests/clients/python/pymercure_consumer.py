"""pymercure makes the URL itself, of a hub and its topics, and parses the response with sseclient-py."""

from urllib.parse import parse_qs, urlsplit

from pymercure.consumer import Consumer
from report import URL, opened, report

hub = urlsplit(URL)
topics = parse_qs(hub.query)["topic"]
consumer = Consumer(
    hub._replace(query="").geturl(),
    topics,
    lambda message: report(message.event_type, message.message_id, message.data),
)
consumer.start_consumption()
opened()
consumer.join()
