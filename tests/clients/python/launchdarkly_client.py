"""launchdarkly-eventsource reconnects by itself where its error strategy says so."""

from ld_eventsource import SSEClient
from ld_eventsource.actions import Event, Start
from ld_eventsource.config import ConnectStrategy, ErrorStrategy
from report import PAUSE_SECS, URL, opened, report

client = SSEClient(
    connect=ConnectStrategy.http(URL),
    error_strategy=ErrorStrategy.always_continue(),
    initial_retry_delay=PAUSE_SECS,
)
for action in client.all:
    if isinstance(action, Start):
        opened()
    elif isinstance(action, Event):
        report(action.event, action.id, action.data)
