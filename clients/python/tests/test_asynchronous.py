"""The asynchronous client."""

import asyncio
import uuid

import pytest
from servers import answer, scripted

import tidings
from tidings import AsyncClient, Refused, Unavailable


def test_publishing_subscribing_and_tickets(hub):
    of = uuid.uuid4().hex

    async def story():
        async with AsyncClient(hub.url) as client:
            receipts = await asyncio.gather(*(client.publish(of, str(number)) for number in range(50)))
            await client.publish_many([(of, "many")])
            received = client.subscribe(of, since="earliest")
            events = [await received.__anext__() for _ in range(51)]
            await received.aclose()
            assert {receipt.id for receipt in receipts} <= {event.id for event in events}
            assert events[-1].data == "many"
            assert (await client.ticket(of)).startswith("tt1.")
            await client.revoke(label=of)
            with pytest.raises(Refused):
                await client.publish(of, "x", type="tidings")

    asyncio.run(asyncio.wait_for(story(), 20))


def test_the_event_loop_never_waits_for_the_hub():
    async def story(url):
        client = AsyncClient(url, timeout=0.3)
        publishing = asyncio.ensure_future(client.publish("chat", "hello"))
        turns = 0
        while not publishing.done():
            turns += 1
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await publishing
        assert turns > 10

    with scripted(*[answer("503 Service Unavailable")] * 20) as server:
        asyncio.run(asyncio.wait_for(story(server.url), 20))


def test_a_subscription_that_waits_can_be_cancelled(hub):
    async def story():
        waiting = asyncio.ensure_future(AsyncClient(hub.url).subscribe(uuid.uuid4().hex).__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asyncio.wait_for(story(), 20))


def test_the_functions_of_the_module(environment):
    async def story():
        of = uuid.uuid4().hex
        receipt = await tidings.apublish(of, {"a": 1})
        async for event in tidings.asubscribe(of, since="earliest"):
            return receipt.id == event.id and event.json() == {"a": 1}

    assert asyncio.run(asyncio.wait_for(story(), 20))


def test_errors_of_a_subscription_reach_its_reader(hub):
    async def story():
        async for _ in AsyncClient(hub.url).subscribe("chat", since="yesterday"):
            pass

    with pytest.raises(Refused):
        asyncio.run(asyncio.wait_for(story(), 20))
