from agent.policy.memory import Lasting
from agent.policy.pack_use import PackUse
from agent.policy_note import read, written

NS = 1_000_000_000
HOUR_S = 3600
UNIX_S = 1_795_000_000.0
KEPT = Lasting(
    PackUse(((100 * NS, 1.5), (4000 * NS, 0.5)), counting=True, soc_pct=61.0), (100 * NS, 4900 * NS)
)
WRITTEN_NS, ANOTHER_BOOT_NS = 5000 * NS, 7 * NS


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
