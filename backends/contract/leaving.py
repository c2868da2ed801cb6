"""Checks of what is left behind: after a run, and after close."""

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backends.contract.subject import Subject, require
from backends.contract.trials import blank_outputs, run, some_inputs
from backends.kernel import Cancelled
from backends.resident import give_freed_memory_back, resident_bytes

SILENCE_S: Final = 0.1
"""So long nothing is written, or a thread that was told to end may take to be gone."""
CYCLES: Final = 3
GROWTH_BYTES: Final = 4 << 20
"""Resident memory may grow by this much a cycle: allocators keep some for themselves."""


def after_a_run_nobody_writes(subject: Subject) -> str:
    """Once `run` has returned or raised, its arrays belong to somebody else: nothing writes to them any more."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        for cancelled in (False, True):
            outputs = blank_outputs(program, 1, 0)
            canceller = threading.Thread(target=program.cancel)
            if cancelled:
                canceller.start()
            with contextlib.suppress(Cancelled):
                program.run(inputs, outputs)
            if cancelled:
                canceller.join()
            before = {name: array.tobytes() for name, array in outputs.items()}
            time.sleep(SILENCE_S)  # nothing tells of a write that does not come
            changed = [name for name, array in outputs.items() if array.tobytes() != before[name]]
            fix = "wait for the device's last copy before returning or raising, also after a cancel"
            require(not changed, f"{', '.join(changed)} changed after run had ended", fix)
    return f"outputs stay as they are for {SILENCE_S:g} s after a run, and after a cancelled one"


def closing_twice_is_harmless(subject: Subject) -> str:
    """The second `close` does nothing."""
    with subject.program() as program:
        program.close()
    return "closed twice"


@dataclass(frozen=True)
class _Held:
    """What a process holds."""

    threads: int
    descriptors: int
    memory_bytes: int


def _held() -> _Held:
    give_freed_memory_back()  # what the C library keeps is no fault of a backend's
    threads = len(list(Path("/proc/self/task").iterdir()))
    return _Held(threads, len(list(Path("/proc/self/fd").iterdir())), resident_bytes())


def _held_once_threads_are_gone(threads: int) -> _Held:
    """What is held when no more threads are left, or after a while: the kernel lists one that has ended for a moment."""
    until_s = time.monotonic() + SILENCE_S
    while (held := _held()).threads > threads and time.monotonic() < until_s:
        time.sleep(0.001)
    return held


def close_gives_everything_back(subject: Subject) -> str:
    """Load, run, close, again and again: no thread, descriptor or memory stays that was not there before."""
    held: list[_Held] = []
    for _ in range(CYCLES + 1):
        with subject.program() as program:
            run(program, some_inputs(program.inputs, 1), 1)
        held.append(_held())
    first = held[0]  # the first load brings in the runtime, which stays
    last = _held_once_threads_are_gone(first.threads)
    fix = "let close() end what load() began"
    names = ", ".join(
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    )
    more = f"{last.threads - first.threads} more threads after {CYCLES} loads"
    require(last.threads <= first.threads, f"{more} (of Python: {names})", fix)
    more = f"{last.descriptors - first.descriptors} more descriptors after {CYCLES} loads"
    require(last.descriptors <= first.descriptors, more, fix)
    grown = last.memory_bytes - first.memory_bytes
    require(grown <= CYCLES * GROWTH_BYTES, f"{grown >> 20} MiB more after {CYCLES} loads", fix)
    return f"{CYCLES} loads: {last.threads} threads, {last.descriptors} descriptors, {grown >> 10:+} KiB"
