"""The binding of fsd_npu.h, against a driver in C that keeps to it: what it does, and every way in which it fails."""

import array
import ctypes
import math
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fsd_drivers import (
    FORMAT,
    LONG_MS,
    abort_storm,
    bound,
    every_call,
    long_run,
    opened,
    program,
    refused,
    wait_until_both_npus_have_worked,
)
from fsd_fixtures import Told

from backends.datatypes import ITEM_BYTES
from firmware_shims.fsd.c_abi.layout import FUNCTIONS
from firmware_shims.fsd.driver import open_device
from firmware_shims.fsd.interface import Binding, Capabilities, Code, FsdError, NpuDevice, NpuProgram

MOST_LATE_S = 0.05  # on a machine whose cores are busy with other things
CODES = [code for code in Code if code is not Code.OK]


# ---- what it does


def test_a_device_says_what_it_is(npu_device: NpuDevice) -> None:
    assert npu_device.capabilities == Capabilities(
        name="reference",
        npus=2,
        sram_bytes=32 << 20,
        clock_hz=2_000_000_000,
        macs_per_cycle=96 * 96,
        operators=frozenset({"Add", "Identity"}),
        program_format=FORMAT,
        energy_source="counter",
        version="1.0",
    )


def test_rows_go_in_and_come_out_computed(npu_device: NpuDevice) -> None:
    loaded = npu_device.load(program("2x3", add=100), 1)
    assert (loaded.inputs, loaded.outputs, loaded.npu) == (
        [Binding("x", "INT8", (2, 3), 6)],
        [Binding("y", "INT8", (2, 3), 6)],
        1,
    )
    x, y = array.array("b", [*range(-3, 3), *range(24, 30)]), array.array("b", bytes(18))
    loaded.bind([x], [y])
    loaded.submit(rows=2)
    loaded.wait(10)
    assert y.tolist() == [*range(97, 103), 124, 125, 126, 127, 127, 127, *[0] * 6]  # and no third row


@pytest.mark.parametrize(
    ("datatype", "item_bytes"),
    ITEM_BYTES.items(),
)
def test_every_datatype_has_its_name_and_size(npu_device: NpuDevice, datatype: str, item_bytes: int) -> None:
    (binding,) = npu_device.load(program("5", add=0, datatype=datatype), 0).inputs
    assert (binding.datatype, binding.row_bytes) == (datatype, 5 * item_bytes)


def test_a_scalar_and_eight_dimensions_are_rows_too(npu_device: NpuDevice) -> None:
    assert npu_device.load(program("-"), 0).inputs[0].row_shape == ()
    assert npu_device.load(program("1x2x3x1x1x1x1x2"), 0).outputs[0].row_shape == (1, 2, 3, 1, 1, 1, 1, 2)


def test_inputs_may_be_read_only_as_a_worker_gives_them(npu_device: NpuDevice) -> None:
    x, y = np.arange(4, dtype=np.int8), np.zeros(4, np.int8)
    x.flags.writeable = False
    loaded = npu_device.load(program(), 0)
    loaded.bind([x], [y])
    loaded.submit()
    loaded.wait(10)
    assert y.tolist() == [5, 6, 7, 8]


def test_a_run_says_what_it_took(npu_device: NpuDevice) -> None:
    loaded, _ = bound(npu_device, program(ms=3), rows=4)
    loaded.submit(4)
    done = loaded.wait(10)
    assert (done.cycles, done.energy_nj) == (12_000, 3_000)
    assert done.device_ns >= 12_000_000
    assert (npu_device.energy_nj(0), npu_device.energy_nj(1)) == (3_000, 0)
    assert npu_device.temperature_c(1) == 41.5


def test_both_npus_run_at_the_same_time(npu_device: NpuDevice) -> None:
    first, second = long_run(npu_device, 0), long_run(npu_device, 1)
    wait_until_both_npus_have_worked(npu_device)
    for each in (first, second):
        with refused(Code.TIMED_OUT, "wait"):
            each.wait(0)  # neither had to end for the other


def test_an_npu_takes_one_run_at_a_time(npu_device: NpuDevice) -> None:
    first = long_run(npu_device)
    second, _ = bound(npu_device, program())
    with refused(Code.BUSY, "submit", "NPU 0 has a run under way"):
        second.submit()
    with refused(Code.BUSY, "submit"):
        first.submit()
    unused = bytearray(4)
    with refused(Code.BUSY, "bind"):
        first.bind([bytes(4)], [unused])
    unused.clear()  # nobody holds it
    first.unload()
    second.submit()
    second.wait(10)


def test_a_wait_that_times_out_leaves_the_run_under_way(npu_device: NpuDevice) -> None:
    loaded, y = bound(npu_device, program(ms=2_000))
    loaded.submit()
    begin = time.monotonic()
    with refused(Code.TIMED_OUT, "wait", "after 20000 us"):
        loaded.wait(0.02)
    assert time.monotonic() - begin >= 0.02
    assert loaded.wait(math.inf).cycles == 2_000_000
    assert y == bytes([6, 7, 8, 9])
    with refused(Code.BAD_ARGUMENT, "wait", "no run"):
        loaded.wait(0)


@pytest.mark.parametrize("timeout_s", [-1, math.nan])
def test_a_time_out_that_is_none_is_refused(npu_device: NpuDevice, timeout_s: float) -> None:
    with refused(Code.BAD_ARGUMENT, "wait", "0 is the least"):
        npu_device.load(program(), 0).wait(timeout_s)


def test_a_time_out_of_ages_is_for_ever(npu_device: NpuDevice) -> None:
    loaded, _ = bound(npu_device, program(ms=5))
    loaded.submit()
    loaded.wait(1e300)


# ---- abort


def aborted(loaded: NpuProgram) -> tuple[float, float]:
    """Seconds from an abort by another thread to the run's end: as the driver says, and as whoever waits sees it."""
    began_s: list[float] = []

    def abort() -> None:
        time.sleep(0.005)  # the run is waited for by then, mostly; it does not matter
        began_s.append(time.monotonic())
        loaded.abort()

    owner = threading.Thread(target=abort)
    loaded.submit()
    owner.start()
    with pytest.raises(FsdError, match=r"wait: aborted: \d+ us after abort") as end:
        loaded.wait(30)
    ended_s = time.monotonic()
    owner.join()
    return int(end.value.text.split()[0]) / 1e6, ended_s - began_s[0]


def test_an_abort_ends_a_run_of_a_minute_at_once(
    npu_device: NpuDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded, _ = bound(npu_device, program(ms=LONG_MS))
    in_driver_s, seen_s = zip(*(aborted(loaded) for _ in range(20)), strict=True)
    with capsys.disabled():
        for what, late_s in (("in the driver", in_driver_s), ("to wait's return", seen_s)):
            median_us, longest_us = statistics.median(late_s) * 1e6, max(late_s) * 1e6
            print(f"\nabort {what}: median {median_us:.0f} us, longest {longest_us:.0f}", end="")  # noqa: T201
    assert min(in_driver_s) < 0.001
    assert sorted(seen_s)[len(seen_s) // 4] < MOST_LATE_S


def test_an_abort_without_a_run_does_nothing_to_the_next_one(npu_device: NpuDevice) -> None:
    loaded, y = bound(npu_device, program(ms=1))
    loaded.abort()
    loaded.submit()
    loaded.wait(10)
    loaded.abort()
    loaded.submit()
    loaded.wait(10)
    assert y == bytes([6, 7, 8, 9])


def test_an_abort_twice_is_one(npu_device: NpuDevice) -> None:
    loaded = long_run(npu_device)
    loaded.abort()
    loaded.abort()
    with refused(Code.ABORTED, "wait"):
        loaded.wait(10)
    loaded.submit()
    with refused(Code.TIMED_OUT, "wait"):
        loaded.wait(0)


def test_an_abort_of_one_npu_leaves_the_other_alone(npu_device: NpuDevice) -> None:
    first, second = long_run(npu_device, 0), long_run(npu_device, 1)
    first.abort()
    with refused(Code.ABORTED, "wait"):
        first.wait(10)
    with refused(Code.TIMED_OUT, "wait"):
        second.wait(0.01)


def test_a_storm_of_aborts_from_many_threads_ends_runs_and_nothing_else(npu_device: NpuDevice) -> None:
    done, aborted = abort_storm(npu_device, rounds=300)
    assert done + aborted == 300
    assert aborted > 0
    loaded, y = bound(npu_device, program())
    loaded.submit()
    loaded.wait(10)
    assert y == bytes([6, 7, 8, 9])


# ---- the end of things


def test_unloading_aborts_and_gives_the_buffers_back(npu_device: NpuDevice) -> None:
    loaded, y = bound(npu_device, program(ms=LONG_MS))
    loaded.submit()
    with pytest.raises(BufferError):
        y.clear()  # a device may still write here
    loaded.unload()
    loaded.unload()
    y.clear()
    loaded.abort()
    for call in (loaded.submit, lambda: loaded.wait(0), lambda: loaded.bind([], [])):
        with pytest.raises(FsdError, match="unloaded") as refusal:
            call()
        assert refusal.value.code is Code.BAD_ARGUMENT


def test_closing_ends_every_run_and_a_second_time_nothing(reference_library: Path) -> None:
    device = open_device(reference_library)
    first, second = long_run(device, 0), long_run(device, 1)
    device.close()
    device.close()
    for each in (first, second):
        each.abort()
        each.unload()
    with refused(Code.NO_DEVICE, "load", "closed"):
        device.load(program(), 0)


def test_a_device_can_be_opened_again(reference_library: Path) -> None:
    for _ in range(3):
        with opened(reference_library) as device:
            long_run(device)


def test_buffers_are_held_until_others_are_bound(npu_device: NpuDevice) -> None:
    size = 1 << 20
    first, second = bytearray(size), bytearray(size)
    loaded = npu_device.load(program(str(size)), 0)
    loaded.bind([bytes(size)], [first])  # and the input is nobody else's any more
    loaded.submit()
    loaded.wait(10)
    assert first == bytes([5]) * size
    with pytest.raises(BufferError):
        first.clear()
    loaded.bind([bytes([7]) * size], [second])
    first.clear()
    loaded.submit()
    loaded.wait(10)
    assert second == bytes([12]) * size


def test_programs_share_the_memory_of_an_npu(npu_device: NpuDevice) -> None:
    half = program("4", 5, 0, "weights 20000000")
    first = npu_device.load(half, 0)
    npu_device.load(half, 1)
    with refused(Code.NO_MEMORY, "load", "weights 20000000"):
        npu_device.load(half, 0)
    first.unload()
    npu_device.load(half, 0)


# ---- the caller's mistakes never reach the driver


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([], [bytearray(8)], "0 buffers for 1 tensors (x)"),
        ([bytes(8)], [], "0 buffers for 1 tensors (y)"),
        ([bytes(8), bytes(8)], [bytearray(8)], "2 buffers for 1 tensors (x)"),
        ([bytes(3)], [bytearray(8)], "1 rows of 'x' are 4 bytes, and its buffer has 3"),
        ([bytes(8)], [bytearray(3)], "1 rows of 'y' are 4 bytes, and its buffer has 3"),
        ([bytes(8)], [bytearray()], "its buffer has 0"),
        ([bytes(8)], [bytes(8)], "'y' needs C-contiguous, writable memory"),
        ([memoryview(bytes(16))[::2]], [bytearray(8)], "'x' needs C-contiguous memory"),
        ([np.zeros((4, 4), np.int8).T[1:]], [bytearray(8)], "'x' needs C-contiguous memory"),
        ([4], [bytearray(8)], "'x' needs C-contiguous memory"),
        ([None], [bytearray(8)], "'x' needs C-contiguous memory"),
    ],
)
def test_buffers_that_do_not_fit_are_refused_by_name_and_those_of_before_stay(
    npu_device: NpuDevice, inputs: list[object], outputs: list[object], words: str
) -> None:
    loaded, y = bound(npu_device, program())
    with refused(Code.BAD_ARGUMENT, "bind", words):
        loaded.bind(inputs, outputs)
    for each in outputs:
        if isinstance(each, bytearray):
            each.clear()  # nobody holds it
    loaded.submit()
    loaded.wait(10)
    assert y == bytes([6, 7, 8, 9])


def test_more_rows_than_the_buffers_hold_are_refused(npu_device: NpuDevice) -> None:
    loaded, _ = bound(npu_device, program(), rows=2)
    with refused(Code.BAD_ARGUMENT, "submit", "3 rows of 'x' are 12 bytes, and its buffer has 8"):
        loaded.submit(3)
    with refused(Code.BAD_ARGUMENT, "submit", "1 is the least"):
        loaded.submit(0)


def test_a_run_without_buffers_is_refused(npu_device: NpuDevice) -> None:
    with refused(Code.BAD_ARGUMENT, "submit", "bind them first"):
        npu_device.load(program(), 0).submit()


@pytest.mark.parametrize("npu", [-1, 2, 2**32])
def test_an_npu_that_is_not_there_is_refused(npu_device: NpuDevice, npu: int) -> None:
    with refused(Code.BAD_ARGUMENT, "load", f"no NPU {npu}: the device has 2, from 0"):
        npu_device.load(program(), npu)
    with refused(Code.BAD_ARGUMENT, "read_energy", f"no NPU {npu}"):
        npu_device.energy_nj(npu)
    with refused(Code.BAD_ARGUMENT, "read_temperature", f"no NPU {npu}"):
        npu_device.temperature_c(npu)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (b"", Code.BAD_PROGRAM, ""),
        (b"\x00\xff" * 100, Code.BAD_PROGRAM, ""),
        (program() + b"\nsing 3", Code.BAD_PROGRAM, "'sing 3'"),
        (program("0"), Code.BAD_PROGRAM, "'input x INT8 0'"),
        (program("4", 5, 0, "operator Sqrt"), Code.UNSUPPORTED, "'operator Sqrt'"),
        (program("4", 5, 0, "weights 999999999"), Code.NO_MEMORY, "'weights 999999999'"),
    ],
)
def test_a_program_that_is_refused_leaves_the_others_running(
    npu_device: NpuDevice, text: bytes, code: Code, words: str
) -> None:
    running = long_run(npu_device)
    with refused(code, "load", words):
        npu_device.load(text, 0)
    with refused(Code.TIMED_OUT, "wait"):
        running.wait(0)


# ---- every code from every call


@pytest.mark.parametrize(
    "call",
    [name for name, function in FUNCTIONS.items() if function.result is ctypes.c_int32],
)
def test_every_code_from_every_call_is_an_exception_with_the_drivers_words(
    reference_library: Path, told: Told, call: str
) -> None:
    for code in CODES:
        told(f"fail:{call}={code}")
        if code is Code.UNSUPPORTED and call.startswith("read_"):
            every_call(reference_library)  # such a figure there is none
            continue
        with refused(code, call) as refusal:
            every_call(reference_library)
        assert refusal.value.text == ("" if call == "abort" else f"{call} was told to fail")


def test_an_abort_that_fails_does_not_quote_the_words_of_another_call(
    reference_library: Path, told: Told
) -> None:
    told(f"fail:abort={Code.INTERNAL}")
    with opened(reference_library) as device:
        running = long_run(device)
        with refused(Code.BAD_PROGRAM, "load", "'nothing'"):
            device.load(b"nothing", 1)
        with refused(Code.INTERNAL, "abort") as refusal:
            running.abort()
        assert refusal.value.text == ""


@pytest.mark.parametrize("number", [12, 4711, -1, -(2**31)])
def test_a_code_without_a_meaning_is_internal_and_tells_its_number(
    reference_library: Path, told: Told, number: int
) -> None:
    told(f"fail:submit={number}")
    with refused(Code.INTERNAL, "submit", str(number), "submit was told to fail"):
        every_call(reference_library)


def test_the_drivers_words_cannot_write_on_a_terminal(reference_library: Path, told: Told) -> None:
    told("fail:submit=11", "lie:garbled")
    with refused(Code.INTERNAL, "submit", r"\u001b[31m", r"\u000ared"):
        every_call(reference_library)


def test_what_a_device_cannot_tell_is_none(reference_library: Path, told: Told) -> None:
    told(
        f"fail:read_energy={Code.UNSUPPORTED}",
        f"fail:read_temperature={Code.UNSUPPORTED}",
        "lie:energy_nj=-1",
    )
    with opened(reference_library) as device:
        assert device.energy_nj(0) is None
        assert device.temperature_c(0) is None
        loaded, _ = bound(device, program())
        loaded.submit()
        assert loaded.wait(10).energy_nj is None


@pytest.mark.parametrize("millidegrees", [-273_150, 2**31 - 1, -(2**31)])
def test_a_broken_sensor_is_no_temperature(reference_library: Path, told: Told, millidegrees: int) -> None:
    told(f"lie:temperature_mc={millidegrees}")
    with opened(reference_library) as device:
        assert device.temperature_c(0) is None


def test_a_lost_device_is_not_called_again_but_to_end_it(reference_library: Path, told: Told) -> None:
    told(f"fail:submit={Code.DEVICE_LOST}")
    with opened(reference_library) as device:
        loaded, y = bound(device, program())
        with refused(Code.DEVICE_LOST, "submit", "told to fail"):
            loaded.submit()
        for call in (
            loaded.submit,
            lambda: loaded.wait(60),
            lambda: loaded.bind([bytes(4)], [bytearray(4)]),
            lambda: device.load(program(), 1),
            lambda: device.energy_nj(0),
            lambda: device.temperature_c(0),
        ):
            with pytest.raises(FsdError, match="it was lost in submit: close it") as refusal:
                call()
            assert refusal.value.code is Code.DEVICE_LOST
        loaded.abort()  # nothing is under way
        with pytest.raises(BufferError):
            y.clear()  # a device that is lost may still write
    y.clear()
