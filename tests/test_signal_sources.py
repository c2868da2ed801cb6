"""Sources by the name that agent.toml gives them."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from firmware_shims import registry, vss
from firmware_shims.can import CanSource
from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.reading import Source
from firmware_shims.registry import open_source
from firmware_shims.scenario import Scenario, Script

SOCKETCAND = {"interface": "socketcand", "host": "127.0.0.1", "port": 29536, "channel": "can0"}


def opened(shim: str, map_name: str | None = None, **options: Any) -> Source:
    return open_source(shim, name="signals0", map=map_name, options=options, clock=boottime_ns)


def test_every_shim_opens_by_name(tmp_path: Path) -> None:
    log = tmp_path / "drive.log"
    log.write_text("")
    table = tmp_path / "day.csv"
    table.write_text(f"t_s,path,value\n0,{vss.GEAR},126\n")
    sources = [
        opened("can", "tesla_model3", **SOCKETCAND),
        opened("replay", "tesla_model3", file=str(log)),
        opened("replay", file=str(table)),
        opened("kuksa"),
        opened("scenario"),
        opened("scenario", file="parked_and_charging"),
        opened("socket", signals=[vss.GEAR]),
    ]
    for source in sources:
        assert source.name == "signals0"
        assert vss.GEAR in source.stale_after_s


@pytest.mark.parametrize(
    ("shim", "map_name", "options", "says"),
    [
        (
            "cam",
            None,
            {},
            "shim = 'cam' is unknown; known: can, gpio, kuksa, linux, replay, scenario, socket",
        ),
        ("can", None, SOCKETCAND, r"signals 'signals0' \(shim can\): map is missing: .*tesla_model3"),
        ("can", "vw", SOCKETCAND, "no signal map 'vw'"),
        ("can", "tesla_model3", {}, "options.interface is None"),
        ("replay", "tesla_model3", {}, "options: Object missing required field `file`"),
        ("replay", "tesla_model3", {"file": "none.log"}, "no candump log at none.log"),
        ("replay", "tesla_model3", {"file": "a.log", "speed": 0}, r"options\.speed: Expected `float` >= 1"),
        ("replay", "tesla_model3", {"file": "a.csv"}, "a CSV names its signals and takes no map"),
        ("replay", "tesla_model3", {"file": "a.log", "stale_after_s": 1}, "stale_after_s is for a CSV"),
        ("kuksa", "tesla_model3", {}, "takes no map"),
        ("scenario", "tesla_model3", {}, "takes no map"),
        ("scenario", None, {"fiel": "x"}, "options: Object contains unknown field `fiel`"),
        ("scenario", None, {"file": "asleep"}, "no scenario 'asleep'"),
        ("socket", None, {}, "options: Object missing required field `signals`"),
        ("socket", None, {"signals": []}, r"options\.signals: Expected `array` of length >= 1"),
        (
            "socket",
            None,
            {"signals": ["Vehicle.Sped"]},
            "'Vehicle.Sped' is no signal .* nearest is Vehicle.Speed",
        ),
        ("socket", None, {"signals": [vss.GEAR], "stale_after_s": 61}, r"options\.stale_after_s: .* <= 60"),
        ("socket", "tesla_model3", {"signals": [vss.GEAR]}, "takes no map"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    shim: str, map_name: str | None, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        opened(shim, map_name, **options)
    assert "\n" not in str(refusal.value)


def telepathy(name: str, map_name: str | None, options: Any, clock: Clock) -> Source:
    assert map_name is None
    return Scenario(name, Script(initial={vss.SPEED: options["kmh"]}), clock)


def test_third_parties_add_a_source_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("telepathy", "test_signal_sources:telepathy", registry.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda _: telepathy)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == registry.ENTRY_POINTS else []
    )
    assert set(opened("telepathy", kmh=3.5).stale_after_s) == {vss.SPEED}
    with pytest.raises(
        ValueError, match="known: can, gpio, kuksa, linux, replay, scenario, socket, telepathy"
    ):
        opened("clairvoyance")


def test_nobody_replaces_a_shim_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("can", "elsewhere:can", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda **_: [entry])
    assert isinstance(opened("can", "tesla_model3", **SOCKETCAND), CanSource)
