from agent import pack_note
from agent.policy.pack_use import PackUse

NS = 1_000_000_000
HOUR_S = 3600
UNIX_S = 1_795_000_000.0


def test_what_was_taken_is_as_old_after_a_restart_as_the_wall_clock_says() -> None:
    use = PackUse(((100 * NS, 1.5), (4000 * NS, 0.5)), counting=True, soc_pct=61.0)
    note = pack_note.written(use, 5000 * NS, UNIX_S)
    later = pack_note.read(note, 7 * NS, UNIX_S + 2 * HOUR_S)  # another boot: its clock began anew
    ages_s = [(7 * NS - stamp_ns) / NS for stamp_ns, _ in later.taken]
    assert ages_s == [4900 + 2 * HOUR_S, 1000 + 2 * HOUR_S]
    assert (later.counting, later.soc_pct) == (True, 61.0)
    assert later.used_pct(7 * NS) == 2.0


def test_a_clock_that_was_set_back_forgives_nothing() -> None:
    note = pack_note.written(PackUse(((100 * NS, 3.0),)), 5000 * NS, UNIX_S)
    assert pack_note.read(note, 7 * NS, UNIX_S - 90 * 86_400).used_pct(7 * NS) == 3.0
