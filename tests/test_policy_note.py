from pathlib import Path

import pytest
from cars import PARKED_AND_CHARGING
from guard_bench import Bench

from agent.policy.memory import Lasting
from agent.policy.pack_use import PackUse
from agent.policy_note import NOTE, PolicyNote, read, written
from agent.store import Store

NS = 1_000_000_000
HOUR_S = 3600
READY_S = 61.0
UNIX_S = 1_795_000_000.0
KEPT = Lasting(
    PackUse(((100 * NS, 1.5), (4000 * NS, 0.5)), counting=True, soc_pct=61.0), (100 * NS, 4900 * NS)
)
WRITTEN_NS, ANOTHER_BOOT_NS = 5000 * NS, 7 * NS


def fails(error: BaseException) -> None:
    raise error


def ages_s(stamps_ns: list[int]) -> list[float]:
    return [(ANOTHER_BOOT_NS - stamp_ns) / NS for stamp_ns in stamps_ns]


def test_what_was_taken_and_started_is_as_old_after_a_restart_as_the_wall_clock_says() -> None:
    later = read(written(KEPT, WRITTEN_NS, UNIX_S), ANOTHER_BOOT_NS, UNIX_S + 2 * HOUR_S)
    assert ages_s([stamp for stamp, _ in later.pack_use.taken]) == [4900 + 2 * HOUR_S, 1000 + 2 * HOUR_S]
    assert ages_s(list(later.starts_ns)) == [4900 + 2 * HOUR_S, 100 + 2 * HOUR_S]
    assert (later.pack_use.counting, later.pack_use.soc_pct) == (True, 61.0)
    assert later.pack_use.used_pct(ANOTHER_BOOT_NS) == 2.0


def test_a_clock_that_was_set_back_forgives_nothing() -> None:
    later = read(written(KEPT, WRITTEN_NS, UNIX_S), ANOTHER_BOOT_NS, UNIX_S - 90 * 86_400)
    assert ages_s(list(later.starts_ns)) == [0, 0]


def test_a_clock_that_cannot_be_trusted_forgives_nothing() -> None:
    for wrote_at, read_at in ((None, UNIX_S), (UNIX_S, None), (None, None)):
        later = read(written(KEPT, WRITTEN_NS, wrote_at), ANOTHER_BOOT_NS, read_at)
        assert later.pack_use.used_pct(ANOTHER_BOOT_NS) == 2.0
        assert ages_s(list(later.starts_ns)) == [0, 0]


async def test_starts_before_a_restart_count_after_it_and_nothing_new_is_not_written(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=1_000_000) as store:
        bench = Bench(PARKED_AND_CHARGING)
        note = PolicyNote(bench.guard, store, bench.clock, bench.wall, fails)
        await note.restore()  # there is none yet
        note.look()
        assert await store.run(lambda ledger: ledger.notes.read(NOTE)) is None
        bench.drive(READY_S)
        note.look()
        restarted = Bench(PARKED_AND_CHARGING, wall_ahead_s=READY_S)
        again = PolicyNote(restarted.guard, store, restarted.clock, restarted.wall, fails)
        await again.restore()
        before, after = bench.guard.lasting.starts_ns, restarted.guard.lasting.starts_ns
        assert len(before) == len(after) == 1
        assert restarted.clock() - after[0] == pytest.approx(bench.clock() - before[0], abs=1000)
        await store.run(lambda ledger: ledger.notes.write(NOTE, b"untouched"))
        again.look()
        assert await store.run(lambda ledger: ledger.notes.read(NOTE)) == b"untouched"
