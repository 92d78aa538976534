"""The bound between the dispatcher's thread and a reader over HTTP."""

from __future__ import annotations

import asyncio
import threading

import msgspec

from edged.adapters.http.asking import Mailbox
from edged.core.link import Delivered, Outgoing
from edged.node.exchange import Exchange


def test_a_mailbox_is_bounded() -> None:
    """Deltas beyond its size are dropped and counted; what must arrive always does, in order."""

    async def run() -> list[bytes | None]:
        box = Mailbox(asyncio.get_running_loop(), bytes_max=10)
        for n in range(100):
            box.put(b"%04d" % n, droppable=True)
        box.put(b"the terminal message", droppable=False)
        assert box.dropped == 98
        return [await box.take(5) for _ in range(3)] + [await box.take(0.01)]

    assert asyncio.run(run()) == [b"0000", b"0001", b"the terminal message", None]


def test_replies_come_from_another_thread() -> None:
    """A reader that waits is woken by each put, whatever the moment."""

    async def run() -> int:
        box = Mailbox(asyncio.get_running_loop())

        def write() -> None:
            for _ in range(2000):
                box.put(b"x", droppable=False)

        thread = threading.Thread(target=write)
        thread.start()
        got = [await box.take(10) for _ in range(2000)]
        thread.join()
        return got.count(b"x")

    assert asyncio.run(run()) == 2000


def test_a_cancel_is_never_lost() -> None:
    """Also one that comes in the same turn of the loop as a reply."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        box = Mailbox(loop)

        async def read() -> None:
            while True:
                await box.take(10)

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        box.put(b"x", droppable=True)
        loop.call_soon(task.cancel)
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done
        assert task.cancelled()

    asyncio.run(run())


def test_a_put_after_the_end_of_the_loop() -> None:
    """Nobody reads it; nothing breaks."""

    async def make() -> Mailbox:
        return Mailbox(asyncio.get_running_loop())

    asyncio.run(make()).put(b"x", droppable=False)


class Broker:
    """A line that keeps what it is given."""

    connected = True

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    def publish(self, message: Outgoing) -> None:
        """Keep it."""
        self.sent.append(message)

    def acknowledge(self, delivery: object) -> None:
        """Nothing is acknowledged here."""
        raise AssertionError(delivery)


def test_the_exchange() -> None:
    """Inside topics go to every mailbox that is open and count as delivered, also to none; others to the broker."""
    broker, told = Broker(), list[Delivered]()
    exchange = Exchange(broker, lambda topic: topic.startswith("in/"), told.append)

    async def run() -> list[list[bytes | None]]:
        boxes = [Mailbox(asyncio.get_running_loop()) for _ in range(2)]
        for box in boxes:
            exchange.open("in/a", box)
        exchange.publish(Outgoing("in/a", b"1"))
        exchange.publish(Outgoing("out", b"2", token=1))
        exchange.close("in/a", boxes[0])
        exchange.publish(Outgoing("in/a", b"3", qos=1, token=2))
        exchange.close("in/a", boxes[1])
        exchange.close("in/a", boxes[1])
        exchange.publish(Outgoing("in/a", b"4", qos=1, token=3))
        first, second = boxes
        return [
            [await first.take(10), await first.take(0.01)],
            [await second.take(10), await second.take(10), await second.take(0.01)],
        ]

    assert asyncio.run(run()) == [[b"1", None], [b"1", b"3", None]]
    assert [message.payload for message in broker.sent] == [b"2"]
    assert told == [Delivered(2), Delivered(3)]


def test_the_end_of_the_exchange() -> None:
    """Who waits is told, and who opens a mailbox when it has just ended: nobody is left to wait for nothing."""
    exchange = Exchange(Broker(), lambda topic: topic.startswith("in/"), lambda _: None)

    async def run() -> list[bytes | None]:
        waits, late = (Mailbox(asyncio.get_running_loop()) for _ in range(2))
        exchange.open("in/req:1", waits)
        exchange.end()
        exchange.open("in/req:2", late)
        return [await waits.take(10), await late.take(10)]

    told = [msgspec.json.decode(payload or b"") for payload in asyncio.run(run())]
    assert [(one["type"], one["id"], one["code"]) for one in told] == [
        ("error", "req:1", "interrupted"),
        ("error", "req:2", "interrupted"),
    ]
