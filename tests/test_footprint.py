"""The instruments of benchmarks/footprint.py, each on something whose footprint is known."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import can
import pytest
from stalls import stalls

from benchmarks.footprint import Sampled
from benchmarks.installed_size import by_extra, closure
from benchmarks.our_processes import census, family
from benchmarks.pass_through import HEADER_BYTES, HOST, Traffic, pass_through
from benchmarks.recorded_drive import LOG, RecordedDrive

WITHIN_S = 30.0
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
held = bytearray(64 * 1024**2)
print("ready", flush=True)
try:
    while sys.stdin.readline():
        for _ in range(100):
            time.sleep(0.001)
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        print("done", flush=True)
finally:
    child.kill()
    child.wait()
"""


@pytest.fixture
def known_process() -> Iterator["subprocess.Popen[str]"]:
    """One with a child and 64 MiB; for each line that it reads it sleeps 100 times and works for 0.5 s."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_the_whole_family_is_counted(known_process: "subprocess.Popen[str]") -> None:
    before = census(known_process.pid)
    assert before.processes == len(family(known_process.pid)) == 2
    assert 64 < before.resident_mib < 164
    assert 64 < before.proportional_mib <= before.resident_mib
    assert known_process.stdin is not None
    assert known_process.stdout is not None
    known_process.stdin.write("\n")
    known_process.stdin.flush()
    assert known_process.stdout.readline() == "done\n"
    after = census(known_process.pid)
    assert 0.4 < after.cpu_s - before.cpu_s < 1.5
    assert 100 <= after.woken_since(before) < 400


async def test_the_relay_counts_what_a_data_plan_is_charged_for() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1000))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, HOST)
    async with server, pass_through(server.sockets[0].getsockname()[1]) as relay:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(bytes(1000))
        assert len(await reader.readexactly(1000)) == 1000
        traffic = relay.traffic()
        assert traffic.payload_bytes == 2000
        assert 5 <= traffic.segments <= 12, "three of the handshake, one each way, and what acknowledges them"
        assert traffic.wire_bytes == 2000 + HEADER_BYTES * traffic.segments
        writer.close()
        await writer.wait_closed()


async def test_a_relay_that_hangs_holds_everything_back_and_ends_nothing() -> None:
    arrived = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        arrived.set()
        writer.close()

    server = await asyncio.start_server(listen, HOST)
    async with server, pass_through(server.sockets[0].getsockname()[1]) as relay:
        relay.hang()
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(b"x")
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert not arrived.is_set()
        writer.close()
        await writer.wait_closed()
    with pytest.raises(RuntimeError, match="nobody has connected"):
        relay.traffic()


def test_the_hour_is_reckoned_with_headers() -> None:
    assert Traffic(payload_bytes=4, segments=3).wire_bytes == 160


@pytest.mark.skipif(not LOG.exists(), reason=f"no recorded drive at {LOG}")
def test_the_recorded_drive_is_played_at_its_own_pace() -> None:
    with RecordedDrive() as bus:
        assert 249 < bus.frames_per_s < 251
        listener = can.Bus(**bus.options)
        try:
            assert listener.recv(WITHIN_S) is not None
            with stalls() as seen:
                begun_s = time.monotonic()
                heard = [listener.recv(WITHIN_S) for _ in range(200)]
                spent_s = time.monotonic() - begun_s
        finally:
            listener.shutdown()
    assert {frame.arbitration_id for frame in heard if frame} <= {0x118, 0x257, 0x266}
    assert 0.5 < spent_s < 5 + seen.lost_s, "200 frames take 0.8 s"


def test_what_was_sampled_is_told_by_median_p95_and_maximum() -> None:
    told = str(Sampled("memory", "MiB", [float(value) for value in range(1, 101)], "<= 48 MiB"))
    assert " ".join(told.split()) == "memory 50 MiB (p95 95, max 100, n = 100) goal <= 48 MiB"


def test_an_extra_adds_what_the_rest_does_not_need() -> None:
    assert {"msgspec", "pydantic-core", "paho-mqtt"} <= closure().keys()
    assert "numpy" not in closure()
    assert "numpy" in closure(["cpu"])
    sizes = by_extra()
    assert (sizes[""] or 0) > 10
    assert (sizes["cpu"] or 0) > 50
