import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.control import (
    LINE_MAX_BYTES,
    Command,
    ControlServer,
    ControlSocketTakenError,
    NoAgentAnswersError,
    ask,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def status(request: dict[str, Any]) -> dict[str, Any]:
    return {"mode": "blocked", "asked": request}


async def slow(request: dict[str, Any]) -> dict[str, Any]:
    del request
    await asyncio.sleep(0)
    return {"took": "a while"}


COMMANDS: dict[str, Command] = {"status": status, "slow": slow}


async def asked(path: Path, **request: object) -> dict[str, Any]:
    return await asyncio.to_thread(ask, path, request)


async def said(path: Path, *lines: bytes) -> list[bytes]:
    """What the agent answers to raw lines, until it has answered each or hung up."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.writelines(lines)
        writer.write_eof()
        return (await asyncio.wait_for(reader.read(), 10)).splitlines()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_vehicle_os_asks_and_is_answered(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        answer = await asked(path, cmd="status", verbose=True)
        assert answer == {"ok": True, "mode": "blocked", "asked": {"cmd": "status", "verbose": True}}
        assert await asked(path, cmd="slow") == {"ok": True, "took": "a while"}


async def test_many_clients_are_answered_side_by_side(path: Path) -> None:
    released = asyncio.Event()

    async def wait(request: dict[str, Any]) -> dict[str, Any]:
        await released.wait()
        return {"n": request["n"]}

    async with ControlServer(path, {"wait": wait, "status": status}), asyncio.TaskGroup() as clients:
        waiting = [clients.create_task(said(path, b'{"cmd":"wait","n":%d}\n' % n)) for n in range(50)]
        assert (await asked(path, cmd="status"))["ok"]
        released.set()
    assert [task.result() for task in waiting] == [[b'{"ok":true,"n":%d}' % n] for n in range(50)]


async def test_only_the_owner_may_open_the_socket_and_it_goes_with_the_agent(path: Path) -> None:
    before = os.umask(0)
    try:
        async with ControlServer(path, COMMANDS):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_second_agent_on_the_socket_is_refused_and_the_first_goes_on(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        with pytest.raises(ControlSocketTakenError, match="another agent answers here"):
            async with ControlServer(path, COMMANDS):
                pass
        assert (await asked(path, cmd="status"))["ok"]


async def test_what_a_killed_agent_left_behind_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with ControlServer(path, COMMANDS):
        assert (await asked(path, cmd="status"))["ok"]


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        async with ControlServer(path, COMMANDS):
            pass
    assert path.read_text() == "precious"


async def test_the_socket_of_a_successor_survives_our_end(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.exists()


@pytest.mark.parametrize(
    "line",
    [b"not json", b"[]", b'"status"', b"{}", b'{"cmd": 5}', b'{"cmd": "reboot"}', b"\xff\xfe", b"[" * 60_000],
)
async def test_a_bad_line_is_answered_with_what_to_do_and_costs_nothing_else(path: Path, line: bytes) -> None:
    async with ControlServer(path, COMMANDS):
        refusal, answer = await said(path, line + b"\n", b'{"cmd":"slow"}\n')
    assert refusal.startswith(b'{"ok":false,"error":"')
    assert b'"fix":"' in refusal
    assert answer == b'{"ok":true,"took":"a while"}'


async def test_a_line_without_end_is_cut_off(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        (refusal,) = await said(path, b"x" * (2 * LINE_MAX_BYTES))
        assert b"longer than 65536 bytes" in refusal
        assert (await asked(path, cmd="status"))["ok"]


async def test_a_client_that_stays_does_not_hold_up_the_end_of_the_agent(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"cmd":"slow"}\n')
        await reader.readline()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_fault_of_our_own_ends_the_agent_instead_of_hiding(path: Path) -> None:
    def broken(request: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError(str(request))

    async def agent() -> None:
        async with ControlServer(path, {"broken": broken}), asyncio.timeout(10):
            await said(path, b'{"cmd":"broken"}\n')
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as ended:
        await agent()
    assert ended.group_contains(ZeroDivisionError)


def nobody(path: Path) -> None:
    del path


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize("left", [nobody, dead_socket])
def test_without_an_agent_the_caller_is_told_so(path: Path, left: Callable[[Path], None]) -> None:
    left(path)
    with pytest.raises(NoAgentAnswersError, match=str(path)):
        ask(path, {"cmd": "status"})


def test_an_agent_that_hangs_does_not_hang_its_caller(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen()
        with pytest.raises(NoAgentAnswersError, match=r"no answer within 0.05 s"):
            ask(path, {"cmd": "status"}, timeout_s=0.05)
