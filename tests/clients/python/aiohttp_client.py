"""aiohttp-sse-client reconnects by itself after a clean end; after a cut its caller opens it again."""

import asyncio

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiohttp_sse_client import client
from report import PAUSE_SECS, URL, opened, report


async def main():
    last_event_id = ""
    async with ClientSession(timeout=ClientTimeout(total=None)) as session:
        while True:
            headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
            try:
                async with client.EventSource(
                    URL, session=session, on_open=opened, headers=headers
                ) as source:
                    async for event in source:
                        last_event_id = event.last_event_id
                        report(event.type, event.last_event_id, event.data)
            except (ClientError, ConnectionError):
                await asyncio.sleep(PAUSE_SECS)


asyncio.run(main())
