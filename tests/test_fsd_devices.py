"""What every device of the driver interface does, whether it is a shared library or the emulator."""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import fsd_drivers
import pytest
from fsd_drivers import Drivers, refused
from fsd_models import STORED, Model, random_weights

from firmware_shims.fsd.driver import open_device
from firmware_shims.fsd.emulator import Emulator
from firmware_shims.fsd.interface import Code, FsdError, NpuDevice, NpuProgram

WAIT_S = 60
KINDS = ("driver", "emulator, fast", "emulator, reference")


def network(layers: int, size: int) -> bytes:
    """Convolutions in a row: `x` of 8 channels in, as much out."""
    model = Model()
    result = model.input("x", (8, size, size), **STORED)
    for seed in range(layers):
        weights = model.constant(random_weights((8, 8, 3, 3), seed), 0.01)
        result = model.apply("Conv", [result, weights], **STORED, pads=[1, 1, 1, 1])
    return model.program(result)


@dataclass(frozen=True)
class Bench:
    """A device, a program that is over at once, and one with rows enough for a run that is not."""

    device: NpuDevice
    quick: bytes
    slow: bytes
    slow_rows: int

    def bound(self, npu: int = 0) -> tuple[NpuProgram, bytearray]:
        loaded = self.device.load(self.quick, npu)
        return loaded, bind(loaded, rows=2)

    def long_run(self, npu: int = 0) -> NpuProgram:
        """A run that is under way and goes on for seconds."""
        loaded = self.device.load(self.slow, npu)
        bind(loaded, self.slow_rows)
        loaded.submit(self.slow_rows)
        return loaded


def bind(loaded: NpuProgram, rows: int) -> bytearray:
    """Bind inputs of many values; where the output goes."""
    result = bytearray(rows * loaded.outputs[0].row_bytes)
    loaded.bind([bytes(place % 100 + 1 for place in range(rows * loaded.inputs[0].row_bytes))], [result])
    return result


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "driver":
        drivers: Drivers = request.getfixturevalue("reference_drivers")
        device = open_device(drivers.built())
        long = fsd_drivers.program(ms=fsd_drivers.LONG_MS)
        bench = Bench(device, fsd_drivers.program(), long, 1)
    else:
        fast = request.param == "emulator, fast"
        device = Emulator("fast" if fast else "reference")
        bench = Bench(device, network(2, 8), network(24, 64), 500 if fast else 64)
    yield bench
    device.close()


def test_it_says_what_it_is(bench: Bench) -> None:
    told = bench.device.capabilities
    assert told.npus == 2
    assert min(told.sram_bytes, told.clock_hz, told.macs_per_cycle) > 0
    assert told.name
    assert told.version
    assert told.program_format
    assert told.operators
    assert told.energy_source in {"counter", "model"}


def test_a_run_is_under_way_until_it_was_waited_for(bench: Bench) -> None:
    loaded, result = bench.bound()
    with refused(Code.BAD_ARGUMENT, "wait", "no run"):
        loaded.wait(0)
    loaded.submit(2)
    with refused(Code.BUSY, "submit", "NPU 0 has a run under way"):
        loaded.submit(2)
    assert loaded.wait(WAIT_S).device_ns >= 0
    assert any(result)
    with refused(Code.BAD_ARGUMENT, "wait", "no run"):
        loaded.wait(0)
    loaded.submit(2)
    loaded.wait(WAIT_S)


def test_a_run_has_its_npu_for_itself_and_leaves_the_other_alone(bench: Bench) -> None:
    first, _ = bench.bound()
    second, _ = bench.bound()
    elsewhere, result = bench.bound(npu=1)
    first.submit()
    with refused(Code.BUSY, "submit", "NPU 0 has a run under way"):
        second.submit()
    elsewhere.submit()
    elsewhere.wait(WAIT_S)
    assert any(result)
    first.wait(WAIT_S)
    second.submit()
    second.wait(WAIT_S)


def test_a_run_keeps_its_buffers_and_others_are_refused_whole(bench: Bench) -> None:
    loaded, result = bench.bound()
    size = loaded.inputs[0].row_bytes
    others = bytearray(size), bytearray(loaded.outputs[0].row_bytes)
    loaded.submit(2)
    with refused(Code.BUSY, "bind"):
        loaded.bind([others[0]], [others[1]])
    loaded.wait(WAIT_S)
    with refused(Code.BAD_ARGUMENT, "bind", "1 rows of"):
        loaded.bind([others[0]], [bytearray(1)])
    with refused(Code.BAD_ARGUMENT, "bind", "writable"):
        loaded.bind([others[0]], [bytes(others[1])])
    for each in others:
        each.clear()  # nobody holds it
    before = bytes(result)
    result[:] = bytes(len(result))
    loaded.submit(2)
    loaded.wait(WAIT_S)
    assert result == before


def test_a_program_holds_its_buffers_until_it_is_unloaded(bench: Bench) -> None:
    loaded, result = bench.bound()
    with pytest.raises(BufferError):
        result.clear()
    loaded.unload()
    result.clear()
    loaded.unload()
    loaded.abort()
    for call in (lambda: loaded.submit(1), lambda: loaded.wait(0), lambda: loaded.bind([], [])):
        with pytest.raises(FsdError, match="bad_argument: the program is unloaded"):
            call()


@pytest.mark.parametrize("timeout_s", [-1.0, -math.inf, math.nan])
def test_a_time_out_that_is_none_is_refused_and_the_run_goes_on(bench: Bench, timeout_s: float) -> None:
    loaded, _ = bench.bound()
    loaded.submit()
    with refused(Code.BAD_ARGUMENT, "wait", "0 is the least"):
        loaded.wait(timeout_s)
    loaded.wait(math.inf)


def test_a_wait_that_times_out_leaves_the_run_under_way(bench: Bench) -> None:
    loaded = bench.long_run()
    for _ in range(2):
        with refused(Code.TIMED_OUT, "wait"):
            loaded.wait(0.01)
    with refused(Code.BUSY, "submit"):
        loaded.submit()
    loaded.abort()
    with refused(Code.ABORTED, "wait"):
        loaded.wait(WAIT_S)


def test_an_abort_ends_the_run_under_way_and_no_other(bench: Bench) -> None:
    loaded, result = bench.bound()
    loaded.abort()
    loaded.submit()
    loaded.wait(WAIT_S)
    before = bytes(result)
    loaded.abort()
    loaded.submit()
    loaded.wait(WAIT_S)
    assert result == before
    running = bench.long_run()
    threads = [threading.Thread(target=running.abort) for _ in range(4)]
    for thread in threads:
        thread.start()
    with refused(Code.ABORTED, "wait"):
        running.wait(WAIT_S)
    for thread in threads:
        thread.join()
    loaded.submit()
    loaded.wait(WAIT_S)


def test_unloading_ends_the_run_and_frees_the_npu(bench: Bench) -> None:
    bench.long_run().unload()
    loaded, _ = bench.bound()
    loaded.submit()
    loaded.wait(WAIT_S)


def test_the_energy_counter_grows_by_what_runs_say_that_they_took(bench: Bench) -> None:
    loaded, _ = bench.bound(npu=1)
    before_nj, other_nj = bench.device.energy_nj(1), bench.device.energy_nj(0)
    loaded.submit(2)
    took_nj = loaded.wait(WAIT_S).energy_nj
    assert before_nj is not None
    assert took_nj is not None
    assert bench.device.energy_nj(1) == before_nj + took_nj
    assert bench.device.energy_nj(0) == other_nj


@pytest.mark.parametrize("npu", [-1, 2])
def test_an_npu_that_is_not_there_is_refused(bench: Bench, npu: int) -> None:
    words = f"there is no NPU {npu}: the device has 2, from 0"
    with refused(Code.BAD_ARGUMENT, "load", words):
        bench.device.load(bench.quick, npu)
    with refused(Code.BAD_ARGUMENT, "read_energy", words):
        bench.device.energy_nj(npu)
    with refused(Code.BAD_ARGUMENT, "read_temperature", words):
        bench.device.temperature_c(npu)


def test_what_is_no_program_is_refused_and_a_run_is_not_disturbed(bench: Bench) -> None:
    loaded, result = bench.bound()
    loaded.submit()
    for text in (b"", b"nothing of the kind", bytes(100)):
        with refused(Code.BAD_PROGRAM, "load"):
            bench.device.load(text, 0)
    loaded.wait(WAIT_S)
    assert any(result)


def test_mistakes_in_the_number_of_rows_are_refused(bench: Bench) -> None:
    unbound = bench.device.load(bench.quick, 0)
    with refused(Code.BAD_ARGUMENT, "submit", "bind them first"):
        unbound.submit()
    loaded, _ = bench.bound()
    with refused(Code.BAD_ARGUMENT, "submit", "0 rows; 1 is the least"):
        loaded.submit(0)
    with refused(Code.BAD_ARGUMENT, "submit", "3 rows of 'x' are"):
        loaded.submit(3)
    with refused(Code.BAD_ARGUMENT, "bind", "0 buffers for 1 tensors (x)"):
        loaded.bind([], [])


def test_closing_ends_everything_and_a_second_time_nothing(bench: Bench) -> None:
    first, second = bench.long_run(0), bench.long_run(1)
    bench.device.close()
    bench.device.close()
    for each in (first, second):
        each.abort()
        each.unload()
    with refused(Code.NO_DEVICE, "load", "the device is closed: open it again"):
        bench.device.load(bench.quick, 0)
