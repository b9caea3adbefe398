# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import contextlib
import json
import socket
import unittest

from vm.qmp import Psp, Qmp, QmpError


async def connected(test):
    """A Qmp and the far end of its connection."""
    near, far = [await asyncio.open_connection(sock=end) for end in socket.socketpair()]
    for _, writer in (near, far):
        test.addAsyncCleanup(close, writer)
    return Qmp(*near), far


async def close(writer):
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def serve(far, answers):
    """Answers each request; returns the requests. What has no `id` of its own gets the request's,
    unless it is an event."""
    reader, writer = far
    requests = []
    for answer in answers:
        request = json.loads(await reader.readline())
        requests.append(request)
        for part in answer:
            part = part if "event" in part else {"id": request["id"]} | part
            writer.write(json.dumps(part).encode() + b"\n")
    return requests


class Execute(unittest.IsolatedAsyncioTestCase):
    async def test_events_are_passed_over(self):
        qmp, far = await connected(self)
        server = asyncio.create_task(serve(far, [[{"event": "RESET"}, {"return": 5}]]))
        self.assertEqual(await qmp.execute("x", a=1), 5)
        self.assertEqual(await server, [{"execute": "x", "arguments": {"a": 1}, "id": 0}])

    async def test_answers_to_others_are_passed_over(self):
        qmp, far = await connected(self)
        answers = [[], [{"return": "late", "id": 0}, {"return": "own"}]]
        asyncio.create_task(serve(far, answers))
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.1):
                await qmp.execute("x")
        self.assertEqual(await qmp.execute("y"), "own")

    async def test_errors_are_raised(self):
        qmp, far = await connected(self)
        asyncio.create_task(serve(far, [[{"error": {"desc": "no such property"}}]]))
        with self.assertRaisesRegex(QmpError, "no such property"):
            await qmp.execute("qom-get")

    async def test_end_of_qemu_is_an_error(self):
        qmp, (_, writer) = await connected(self)
        writer.close()
        with self.assertRaises(QmpError):
            await qmp.execute("quit")


class Relay(unittest.IsolatedAsyncioTestCase):
    async def test_a_request_is_written_then_read_back(self):
        qmp, far = await connected(self)
        server = asyncio.create_task(
            serve(far, [[{"return": {}}], [{"return": '{"contexts":\n0}\n'}]])
        )
        self.assertEqual(await Psp(qmp).request("counters"), '{"contexts": 0}')
        commands = [(r["execute"], r["arguments"].get("value")) for r in await server]
        self.assertEqual(commands, [("qom-set", "counters"), ("qom-get", None)])

    async def test_requests_do_not_mix(self):
        qmp, far = await connected(self)
        answers = [[{"return": {}}], [{"return": "one"}], [{"return": {}}], [{"return": "two"}]]
        server = asyncio.create_task(serve(far, answers))
        psp = Psp(qmp)
        replies = await asyncio.gather(psp.request("1"), psp.request("2"))
        self.assertEqual(replies, ["one", "two"])
        executed = [request["execute"] for request in await server]
        self.assertEqual(executed, ["qom-set", "qom-get"] * 2)

    async def test_machine_counters_is_a_property_of_its_own(self):
        qmp, far = await connected(self)
        server = asyncio.create_task(serve(far, [[{"return": "{}"}]]))
        await Psp(qmp).request("machine-counters")
        self.assertEqual((await server)[0]["arguments"]["property"], "machine-counters")

    async def test_a_refusal_is_a_reply(self):
        qmp, far = await connected(self)
        asyncio.create_task(serve(far, [[{"error": {"desc": "no"}}]]))
        self.assertEqual(await Psp(qmp).request("counters"), "error: no")


if __name__ == "__main__":
    unittest.main()
