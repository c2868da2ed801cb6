"""A recorded car as a table of readings."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from listening import Ear, listening

from agent.signals import Signals
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.csv_log import CsvLogError, CsvReplay, Row, read_rows
from firmware_shims.reading import Quality, Source
from firmware_shims.registry import open_source

HEADING = "t_s,path,value\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "day.csv"


def rows(log: Path, text: str) -> list[Row]:
    log.write_text(HEADING + text)
    return list(read_rows(log))


def opened(log: Path, **options: Any) -> Source:
    return open_source(
        "replay", name="day", map=None, options={"file": str(log), **options}, clock=boottime_ns
    )


def test_values_are_booleans_numbers_and_text(log: Path) -> None:
    text = "0,Door,false\n0.25,Door,True\n1,Speed,-3.5e1\n1e3,State,OFF\n"
    assert rows(log, text) == [
        Row(0, "Door", False),
        Row(250_000_000, "Door", True),
        Row(1_000_000_000, "Speed", -35.0),
        Row(1_000_000_000_000, "State", "OFF"),
    ]


@pytest.mark.parametrize("value", ["", "nan", "NaN", "inf", "-Infinity", "1e999"])
def test_a_value_that_is_none_is_an_invalid_reading(log: Path, value: str) -> None:
    assert rows(log, f"0,{vss.SPEED},{value}\n") == [Row(0, vss.SPEED, None)]
    ear = Ear()
    with listening(opened(log), ear):
        assert ear.wait_for(vss.SPEED, None).quality is Quality.INVALID


def test_blanks_and_a_byte_order_mark_and_windows_line_ends_do_not_matter(log: Path) -> None:
    log.write_bytes(b"\xef\xbb\xbft_s, path, value\r\n\r\n0, Vehicle.Speed, 5\r\n")
    assert list(read_rows(log)) == [Row(0, "Vehicle.Speed", 5.0)]


@pytest.mark.parametrize("cut", ["13", "13,Vehicle.Sp", "13,Vehicle.Speed,1"])
def test_a_log_that_ends_in_the_middle_of_a_line_ends_at_the_line_above(
    log: Path, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert rows(log, "12,Vehicle.Speed,0\n" + cut) == [Row(12_000_000_000, "Vehicle.Speed", 0.0)]
    assert caplog.messages == [f"{log}:3: the line has no end and is left out"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ": no readings in it"),
        ("Date,state\n", ":1: the first line must be t_s,path,value"),
        ("\x00\xff\x00\n", ":1: not UTF-8"),
        ("x" * 5000, ":1: a line of 4096 bytes or more is no reading"),
        (HEADING, ": no readings in it"),
        (HEADING + "0,A,1\n1,B\n", ":3: 2 fields instead of t_s,path,value"),
        (HEADING + "0,A,1,km/h\n", ":2: 4 fields instead of t_s,path,value"),
        (HEADING + "soon,A,1\n", ":2: t_s is 'soon': a number of seconds"),
        (HEADING + "nan,A,1\n", ":2: t_s is 'nan'"),
        (HEADING + "inf,A,1\n", ":2: t_s is 'inf'"),
        (HEADING + "1e300,A,1\n", ":2: t_s is '1e300'"),
        (HEADING + "5,A,1\n\n3.5,A,1\n", ":4: t_s jumps back by 1.5 s"),
        (HEADING + "0,,1\n", ":2: no path"),
        (HEADING + "0,A,1\n0,\xff,1\n", ":3: not UTF-8"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_with_its_line(log: Path, text: str, says: str) -> None:
    log.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="signals 'day'") as refusal:
        opened(log)
    assert f"{log}{says}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_log_is_played_at_the_speed_at_which_it_was_recorded(log: Path) -> None:
    log.write_text(HEADING + f"100,{vss.SPEED},0\n100.3,{vss.SPEED},7\n100.3,{vss.GEAR},127\n")
    source, ear = opened(log), Ear()
    assert dict(source.stale_after_s) == {vss.SPEED: 1.0, vss.GEAR: 1.0}
    with listening(source, ear):
        first = ear.wait_for(vss.SPEED, 0.0)
        last = ear.wait_for(vss.GEAR, 127.0)
    assert last.stamp_ns - first.stamp_ns >= 290_000_000
    assert len([stamp for stamp in ear.heard_ns if stamp <= last.stamp_ns]) >= 3


def test_a_log_is_played_faster(log: Path) -> None:
    log.write_text(HEADING + "".join(f"{60 * minute},{vss.SOC},{minute}\n" for minute in range(19)))
    ear = Ear()
    began_ns = boottime_ns()
    with listening(opened(log, speed=1000, stale_after_s=90), ear):
        ear.wait_for(vss.SOC, 18.0)
    assert (ear.readings[-1].stamp_ns - began_ns) / 1e9 >= 1.08
    assert [reading.value for reading in ear.readings] == [float(minute) for minute in range(19)]


def test_behind_its_end_a_log_is_silent_and_everything_goes_stale(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log.write_text(HEADING + f"0,{vss.GEAR},126\n0.2,{vss.SPEED},0\n")
    source, ear = opened(log), Ear()
    with listening(source, ear) as thread:
        last = ear.wait_for(vss.SPEED, 0.0)
        thread.join(0.3)
        assert thread.is_alive()
    assert caplog.messages == ["signals day: the log has ended"]
    signals = Signals([source])
    signals.update(ear.readings)
    for heard_ns in ear.heard_ns:
        signals.heard("day", heard_ns)
    signals.look(last.stamp_ns)
    assert signals.snapshot(last.stamp_ns).good(vss.GEAR) == 126
    assert signals.look(last.stamp_ns + 1_200_000_000)
    assert signals.snapshot(last.stamp_ns).good(vss.GEAR) is None


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none.csv")


def test_a_log_that_changed_under_the_agent_ends_it_with_its_line(log: Path) -> None:
    log.write_text(HEADING + "0,A,1\n")
    source = CsvReplay("day", log, boottime_ns)
    log.write_text(HEADING + "0,A\n")
    with pytest.raises(CsvLogError, match=":2: 2 fields"):
        source.run(Ear(), threading.Event())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"speed": 0.5}, r"options\.speed: Expected `float` >= 1"),
        ({"speed": float("nan")}, r"options\.speed: Expected `float`"),
        ({"stale_after_s": 0}, r"options\.stale_after_s: Expected `float` > 0"),
        ({"sped": 2}, "unknown field `sped`"),
    ],
)
def test_options_that_cannot_work_are_refused(log: Path, options: dict[str, Any], says: str) -> None:
    log.write_text(HEADING + "0,A,1\n")
    with pytest.raises(ValueError, match=says):
        opened(log, **options)
