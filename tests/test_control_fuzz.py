"""No line of bytes harms the agent: whatever comes is answered, and the next client is served."""

import json
import socket
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from agents import write_config
from hypothesis import given
from hypothesis import strategies as st
from running import service, stopped
from vehicle_os import takes_pushes

from agent.control import ask
from firmware_shims import vss
from fleet.broker import free_port


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """The control socket of an agent that lives for all examples, and then ends as it should."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = takes_pushes(write_config(folder, free_port()))
        with service(folder, config) as process:
            yield folder / "agent.sock"
            code, log = stopped(process)
    assert code == 0
    assert "Traceback" not in log


def exchanged(path: Path, pieces: list[bytes]) -> list[bytes]:
    """Everything that is answered to these pieces, up to the end."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            return answers.readlines()


PATHS = st.sampled_from([vss.SPEED, vss.DRIVER_DOOR, vss.LOW_VOLTAGE_STATE, vss.GEAR, "Vehicle.Nowhere"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["OFF", "ON"]),
    lambda inner: st.lists(inner) | st.dictionaries(PATHS | st.text(), inner),
    max_leaves=8,
)
NAMES: st.SearchStrategy[object] = st.sampled_from(
    ["status", "watch", "pause", "resume", "consent", "departure", "signals", "reboot", None, 5, {}]
)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat())
REQUESTS = st.fixed_dictionaries(
    {"cmd": NAMES}, optional={"values": JSON, "value": JSON, "at": JSON | TIMES | st.text()}
)
LINES = st.one_of(
    st.binary(max_size=300),
    REQUESTS.map(lambda request: json.dumps(request).encode()),  # NaN and lone surrogates too
    JSON.map(lambda value: json.dumps(value).encode()),
    st.integers(1, 70_000).map(lambda depth: b"[" * depth),
)


@given(st.lists(LINES, max_size=6), st.lists(st.integers(1, 50), max_size=4))
def test_whatever_bytes_come_each_line_is_answered_and_the_agent_lives(
    running: Path, lines: list[bytes], cuts: list[int]
) -> None:
    sent = b"".join(line + b"\n" for line in lines)
    ends = [0, *(min(end, len(sent)) for end in sorted(cuts)), len(sent)]
    pieces = [sent[begin:end] for begin, end in pairwise(ends)]
    answers = [json.loads(answer) for answer in exchanged(running, pieces)]
    assert len(answers) >= sent.count(b"\n")
    for answer in answers:
        assert answer["ok"] is True or (answer["ok"] is False and answer["error"] and answer["fix"])
    assert ask(running, {"cmd": "status"})["ok"]
