import asyncio
import contextlib
import errno
import grp
import os
import signal
import socket
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.control import NoAgentAnswersError, ask, watch
from agent.control_lines import CLIENTS_MAX, LINE_MAX_BYTES, OWED_MAX
from agent.control_server import Answer, CommandRefused, CommandTable, ControlServer, Request
from agent.control_socket import ControlSocketTakenError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


async def status(request: Request) -> Answer:
    return {"mode": "blocked", "asked": request}


async def slow(_: Request) -> Answer:
    await asyncio.sleep(0)
    return {"took": "a while"}


async def refuse(_: Request) -> Answer:
    raise CommandRefused("it is Sunday", "wait")


def push(request: Request) -> Answer:
    return {"read_in": threading.current_thread().name, "n": request.get("n")}


COMMANDS = CommandTable(prompt={"push": push}, asked={"status": status, "slow": slow, "refuse": refuse})


async def asked(path: Path, **request: object) -> dict[str, Any]:
    return await asyncio.to_thread(ask, path, request)


async def said(path: Path, *lines: bytes) -> list[bytes]:
    """What the agent answers to raw lines, until it has answered each or hung up."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.writelines(lines)
        writer.write_eof()
        return (await asyncio.wait_for(reader.read(), 30)).splitlines()
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

    async def wait(request: Request) -> Answer:
        await released.wait()
        return {"n": request["n"]}

    table = CommandTable(asked={"wait": wait, "status": status})
    async with ControlServer(path, table), asyncio.TaskGroup() as clients:
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


async def test_a_group_may_share_the_socket_with_its_owner(path: Path) -> None:
    ours = grp.getgrgid(os.getgid()).gr_name
    async with ControlServer(path, COMMANDS, group=ours):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getgid()


async def test_a_group_that_the_agent_is_not_in_is_refused_with_its_fix(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:  # what the kernel says to who is not root
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(PermissionError, match="make the agent's user a member"):
        async with ControlServer(path, COMMANDS, group=grp.getgrgid(os.getgid()).gr_name):
            pass
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


@pytest.mark.parametrize("name", ["a_file/agent.sock", f"{'long' * 40}/agent.sock"])
async def test_a_socket_that_cannot_be_made_says_where_and_what_to_do(path: Path, name: str) -> None:
    (path.parent / "a_file").write_text("no folder")
    with pytest.raises(OSError, match=r"RuntimeDirectory= in its unit does, or set control\.socket") as error:
        async with ControlServer(path.parent / name, COMMANDS):
            pass
    assert str(path.parent) in error.value.filename


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


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_without_end_is_cut_off(path: Path, end: bytes) -> None:
    async with ControlServer(path, COMMANDS):
        refusal, *more = await said(
            path, b"x" * (3 * LINE_MAX_BYTES) + end, b'{"cmd":"slow"}\n' if end else b""
        )
        assert b"longer than 65536 bytes" in refusal
        assert more == ([b'{"ok":true,"took":"a while"}'] if end else [])


async def test_a_line_that_comes_in_pieces_is_one_line(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        reader, writer = await asyncio.open_unix_connection(path)
        for piece in (b'{"cmd"', b':"push",', b'"n":1}', b'\n{"cmd":"push","n":2}\n{"cmd":'):
            writer.write(piece)
            await writer.drain()
        assert msgspec.json.decode(await reader.readline())["n"] == 1
        assert msgspec.json.decode(await reader.readline())["n"] == 2
        writer.close()
        await writer.wait_closed()


async def test_two_meanings_in_one_line_are_refused(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        (refusal,) = await said(path, b'{"cmd":"push","n":1,"n":2}\n')
        assert b"more than once" in refusal


async def test_what_a_command_refuses_is_said_with_its_fix(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        assert await asked(path, cmd="refuse") == {"ok": False, "error": "it is Sunday", "fix": "wait"}


async def test_a_push_is_taken_while_the_event_loop_is_busy(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        busy = threading.Thread(target=lambda: answers.append(ask(path, {"cmd": "push", "n": 7})))
        answers: list[dict[str, Any]] = []
        busy.start()
        busy.join()  # the loop stands still until the answer is here
        assert answers == [{"ok": True, "read_in": "control_0", "n": 7}]


async def test_a_push_behind_an_unanswered_request_is_taken_at_once_and_answered_in_turn(path: Path) -> None:
    released, pushed = asyncio.Event(), threading.Event()

    async def wait(_: Request) -> Answer:
        await released.wait()
        return {"waited": True}

    def push(_: Request) -> Answer:
        pushed.set()
        return {"pushed": True}

    async with ControlServer(path, CommandTable(prompt={"push": push}, asked={"wait": wait})):
        conversation = asyncio.create_task(said(path, b'{"cmd":"wait"}\n{"cmd":"push"}\n'))
        assert await asyncio.to_thread(pushed.wait, 10)
        released.set()
        assert await conversation == [b'{"ok":true,"waited":true}', b'{"ok":true,"pushed":true}']


async def test_a_client_that_stays_does_not_hold_up_the_end_of_the_agent(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"cmd":"slow"}\n')
        await reader.readline()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def push_for_ever(client: socket.socket) -> None:
    while True:
        client.sendall(b'{"cmd":"push"}\n' * OWED_MAX)


async def test_a_client_that_never_reads_its_answers_is_hung_up_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ControlServer(path, COMMANDS):
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.settimeout(30)
            deaf.connect(str(path))
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(push_for_ever, deaf)
        assert "does not read its answers" in caplog.text
        assert (await asked(path, cmd="status"))["ok"]


async def test_no_more_clients_than_there_is_room_for(path: Path) -> None:
    async with ControlServer(path, COMMANDS):
        clients = [await asyncio.open_unix_connection(path) for _ in range(CLIENTS_MAX)]
        with pytest.raises(NoAgentAnswersError):
            await asked(path, cmd="status")
        for reader, writer in clients:
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert (await asked(path, cmd="status"))["ok"]


def broken(request: Request) -> Answer:
    raise ZeroDivisionError(str(request))


async def broken_too(request: Request) -> Answer:
    return broken(request)


@pytest.mark.parametrize(
    "table", [CommandTable(prompt={"broken": broken}), CommandTable(asked={"broken": broken_too})]
)
async def test_a_fault_of_our_own_ends_the_agent_instead_of_hiding(path: Path, table: CommandTable) -> None:
    async with ControlServer(path, table) as server:
        conversation = asyncio.create_task(said(path, b'{"cmd":"broken"}\n'))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(server.failed, 30)
    assert await conversation == []


async def test_a_stream_sends_a_line_for_each_change_and_only_the_newest_waits(path: Path) -> None:
    """A watcher that does not read costs one line of memory, and sees the newest when it reads again."""
    size, count = 50_000, 200
    ended = asyncio.Event()

    async def watch(_: Request) -> AsyncGenerator[Answer, None]:
        for number in range(count):
            yield {"n": number, "padding": "x" * size}
            await asyncio.sleep(0)
        ended.set()
        await asyncio.Event().wait()

    async with ControlServer(path, CommandTable(streams={"watch": watch})):
        reader, writer = await asyncio.open_unix_connection(path, limit=2 * size)
        writer.write(b'{"cmd":"watch"}\n')
        first = msgspec.json.decode(await reader.readline())
        await ended.wait()
        seen = [first["n"]]
        while seen[-1] < count - 1:
            seen.append(msgspec.json.decode(await asyncio.wait_for(reader.readline(), 30))["n"])
        assert seen == sorted(seen)
        assert len(seen) < count
        writer.close()
        await writer.wait_closed()


async def test_a_stream_ends_with_its_client(path: Path) -> None:
    ended = asyncio.Event()

    async def watch(_: Request) -> AsyncGenerator[Answer, None]:
        try:
            yield {}
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with ControlServer(path, CommandTable(prompt={"push": push}, streams={"watch": watch})):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"cmd":"watch"}\n{"cmd":"watch"}\n{"cmd":"push","n":3}\n')
        assert await reader.readline() == b'{"ok":true}\n'
        assert b"has a stream already" in await reader.readline()
        assert msgspec.json.decode(await reader.readline())["n"] == 3
        assert not ended.is_set()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_watcher_hears_of_the_end_of_the_agent(path: Path) -> None:
    async def forever(_: Request) -> AsyncGenerator[Answer, None]:
        yield {"status": {}}
        await asyncio.Event().wait()

    lines = watch(path)
    async with ControlServer(path, CommandTable(streams={"watch": forever})):
        assert await asyncio.to_thread(next, lines) == {"ok": True, "status": {}}
    with pytest.raises(NoAgentAnswersError, match="hung up"):
        await asyncio.to_thread(next, lines)


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


async def test_who_watches_may_have_the_last_word_again_and_again(path: Path) -> None:
    """For a screen on which ages grow; a line that comes in pieces meanwhile is not torn."""
    going_on = asyncio.Event()

    async def changes(_: Request) -> AsyncGenerator[Answer, None]:
        yield {"n": 1}
        await going_on.wait()
        yield {"n": 2, "padding": "x" * 300_000}
        await asyncio.Event().wait()

    async with ControlServer(path, CommandTable(streams={"watch": changes})):
        lines = watch(path, every_s=0.02)
        for _ in range(3):
            assert (await asyncio.to_thread(next, lines))["n"] == 1
        going_on.set()
        async with asyncio.timeout(30):
            while (await asyncio.to_thread(next, lines))["n"] == 1:
                pass
        await asyncio.to_thread(lines.close)


def waits(thread: threading.Thread) -> bool:
    """Whether it sleeps, at every one of many looks: for the interpreter's lock it would not wait so long."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    return all(stat.read_text().rpartition(")")[2].split()[0] == "S" for _ in range(50))


def test_ctrl_c_just_before_a_watcher_begins_to_wait_is_not_lost(path: Path) -> None:
    """Such a signal interrupts no system call. One that another thread takes is alike, and comes at will."""
    ends: list[bytes] = []

    def answer_once(agent: socket.socket) -> None:
        client, _ = agent.accept()
        with client:
            client.recv(1000)
            client.sendall(b'{"ok": true}\n')
            while not waits(threading.main_thread()):
                continue
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            client.settimeout(20)
            with contextlib.suppress(TimeoutError):
                ends.append(client.recv(1000))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen()
        serving = threading.Thread(target=answer_once, args=(agent,))
        serving.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                list(watch(path))
        finally:
            signal.signal(signal.SIGINT, before)
            serving.join()
    assert ends == [b""]


@pytest.mark.parametrize(
    ("number", "absent", "does"),
    [
        (errno.ENOENT, True, "systemctl start parkwatt"),
        (errno.ECONNREFUSED, True, "systemctl start parkwatt"),
        (errno.EACCES, False, "as a member of control.group"),
        (errno.ECONNRESET, False, "too many clients"),
    ],
)
def test_who_is_not_answered_is_told_what_to_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, absent: bool, does: str
) -> None:
    class Refusing(socket.socket):  # what the kernel says to who is not root
        def connect(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(NoAgentAnswersError) as refused:
        ask(path, {"cmd": "status"})
    assert os.strerror(number) in str(refused.value)
    assert does in refused.value.fix
    assert refused.value.absent is absent
