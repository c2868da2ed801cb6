"""SIGHUP: what of a changed configuration a running agent takes up, and what it leaves for a restart."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from agents import TOPICS, agent, write_config
from config_files import MINIMAL, config_file
from service_manager import Started, systemd_starts
from wire_fleet import task, wire_fleet

from agent.control import ask
from agent.protocol.messages import Mode, TaskState
from agent.protocol.reasons import Reason
from agent.reload import change
from agent.settings import Settings, load
from fleet.broker import Broker

OUTLINE = '{"type": "Polygon", "coordinates": [[[-50, -20], [-40, -20], [-40, -30], [-50, -30], [-50, -20]]]}'


def settings(folder: Path, more: str = "", base: str = MINIMAL) -> Settings:
    return load(config_file(folder, more, base), {})


TAKEN_UP: dict[str, tuple[str, tuple[str, ...]]] = {
    "thresholds": (
        "[policy]\nsoc_start_pct = 40\nsettle_s = 30\n",
        ("policy.settle_s", "policy.soc_start_pct"),
    ),
    "schedule": ('[policy]\nschedule = ["sat 00:00-24:00"]\n', ("policy.schedule",)),
    "queue": ("[tasks]\nqueue_s = 20\n", ("tasks.queue_s",)),
    "age": ("[trust]\nmax_age_s = 3600\n", ("trust.max_age_s",)),
    "residency": ('[trust]\nresidency = ["BR", "AR"]\n', ("trust.residency",)),
    "log level": ('[log]\nlevel = "debug"\n', ("log.level",)),
}
LEFT: dict[str, tuple[str, tuple[str, ...]]] = {
    "broker": ('[mqtt]\nport = 8883\nroot = "fleet/v2"\n', ("mqtt.port", "mqtt.root")),
    "store": ("[store]\nmax_bytes = 600_000_000\n", ("store.max_bytes",)),
    "signatures": ("[trust]\nrequire_signatures = false\n", ("trust.require_signatures",)),
    "another source": ('[[signals]]\nshim = "scenario"\n', ("signals",)),
    "another backend": ('[[backends]]\nuse = "fault"\nmax_power_w = 5\n', ("backends",)),
}


@pytest.mark.parametrize("what", TAKEN_UP)
def test_what_can_change_while_it_runs_is_taken_up(tmp_path: Path, what: str) -> None:
    more, keys = TAKEN_UP[what]
    before, wanted = settings(tmp_path), settings(tmp_path, more)
    found = change(before, wanted)
    assert (found.applied, found.waiting) == (keys, ())
    assert found.settings == wanted


@pytest.mark.parametrize("what", LEFT)
def test_what_cannot_is_named_and_stays(tmp_path: Path, what: str) -> None:
    more, keys = LEFT[what]
    before = settings(tmp_path)
    found = change(before, settings(tmp_path, more))
    assert (found.applied, found.waiting) == ((), keys)
    assert found.settings == before


def test_one_section_may_have_both(tmp_path: Path) -> None:
    before = settings(tmp_path)
    found = change(before, settings(tmp_path, '[trust]\nmax_age_s = 90\ntask_keys_dir = "/keys"\n'))
    assert (found.applied, found.waiting) == (("trust.max_age_s",), ("trust.task_keys_dir",))
    assert found.settings.trust == before.trust.model_copy(update={"max_age_s": 90.0})


def test_a_car_that_moves_to_another_region_keeps_what_describes_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "ar.geojson").write_text(OUTLINE)
    moved = MINIMAL.replace('"BR"', f'"AR"\nregion_file = "{tmp_path}/ar.geojson"')
    before = settings(tmp_path)
    found = change(before, settings(tmp_path, "[policy]\nsettle_s = 30\n", moved))
    assert found.applied == ("policy.settle_s",)
    assert found.waiting == ("vehicle.region", "vehicle.region_file", "trust.residency")
    assert found.settings.trust.residency == ("BR",)


def test_every_section_is_looked_at(tmp_path: Path) -> None:
    """A key that is neither here nor there would be lost without a word."""
    same = settings(tmp_path)
    assert change(same, same).waiting == ()
    wanted = same.model_copy(
        update={name: _other(getattr(same, name)) for name in Settings.model_fields if name != "vehicle"}
    )
    found = change(same, wanted)
    told = {key.partition(".")[0] for key in (*found.applied, *found.waiting)}
    assert told == set(Settings.model_fields) - {"vehicle"}


def _other(section: Any) -> Any:
    """A section in which one thing differs; nothing checks what it is."""
    if isinstance(section, tuple):
        return (*section, *section)
    name = next(iter(type(section).model_fields))
    return section.model_copy(update={name: "something else"})


async def reloaded(service: Started) -> None:
    """Ask for it, and wait until it has been done."""
    before = service.count("RELOADING=1")
    service.signal(signal.SIGHUP)
    await service.until_said("RELOADING=1", times=before + 1)
    await service.until_said("READY=1", times=before + 2)


async def test_thresholds_are_taken_up_by_the_running_agent(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, settle_s=0)
    async with systemd_starts(config) as service:
        await service.until_status("ready")
        text = config.read_text()
        config.write_text(text.replace("[policy]\n", "[policy]\nrequire_consent = true\n"))
        await reloaded(service)
        words = [word for _, word in service.words if not word.startswith("STATUS=")]
        assert words[0] == "READY=1"
        assert words[1] == "RELOADING=1"
        assert words[2].startswith("MONOTONIC_USEC=")
        assert words[3] == "READY=1"
        await service.until_status("blocked: consent (1016) not asked")
        assert "reloaded" in service.log.read_text()
        config.write_text(text)
        await reloaded(service)
        await service.until_status("ready")
        assert (await service.stop())[0] == 0


async def test_a_file_with_a_fault_in_it_changes_nothing_and_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, settle_s=0)
    async with systemd_starts(config) as service:
        await service.until_status("ready")
        text = config.read_text()
        config.write_text(text.replace("[policy]\n", "[policy]\nrequire_consent = true\nsoc_stop_pct = 99\n"))
        await reloaded(service)
        await service.until(lambda: service.status.startswith("ready; nothing was reloaded: "), "the fault")
        (line,) = [line for line in service.log.read_text().splitlines() if "nothing is reloaded" in line]
        assert "soc_floor_pct <= soc_stop_pct < soc_start_pct" in line
        config.unlink()
        await reloaded(service)
        assert "cannot be read" in service.log.read_text()
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"})
        assert answer["status"]["mode"] == "ready"
        config.write_text(text)
        await reloaded(service)
        await service.until_status("ready")
        await service.stop()


async def test_what_needs_a_restart_is_named(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, settle_s=0)
    async with systemd_starts(config) as service:
        await service.until_status("ready")
        config.write_text(config.read_text().replace("port = 1\n", "port = 2\n"))
        await reloaded(service)
        await service.until_status("ready; a restart is needed for mqtt.port")
        assert "a restart is needed for: mqtt.port" in service.log.read_text()
        await service.stop()


async def test_a_reload_keeps_the_session_and_the_work(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    async with systemd_starts(config) as service, wire_fleet(iotcore.port, TOPICS) as fleet:
        await fleet.until(fleet.last_state, "the car says that it is there")
        fleet.send(task("night-1", count=80))
        await service.until_status("working")
        for settle_s in (30, 40, 50):
            config.write_text(config.read_text().replace("settle_s = 0.2", f"settle_s = {settle_s}"))
            await reloaded(service)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert fleet.states_of("night-1").count(TaskState.PREEMPTED) == 0
        assert {state.boot for state in fleet.states} == {1}
        assert all(state.online for state in fleet.states)
        await service.stop()


async def test_what_the_fleet_and_the_vehicle_os_are_told_follows_a_reload(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:

        def mode() -> Mode | None:
            state = fleet.last_state()
            return state.mode if state else None

        await fleet.until(lambda: mode() is Mode.READY, "ready")
        text = config.read_text()
        more = '[policy]\nrequire_consent = true\ntime_zone = "America/Sao_Paulo"\n'
        config.write_text(text.replace("[policy]\n", more))
        car.service.adopt(change(car.service.settings, load(config, {})).settings)
        await fleet.until(lambda: mode() is Mode.BLOCKED, "blocked")
        said = fleet.last_state()
        assert said is not None
        assert [blocker.code for blocker in said.blockers] == [Reason.CONSENT]
        status = (await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"}))["status"]
        assert [blocker["name"] for blocker in status["blockers"]] == ["consent"]
        assert status["time_zone"] == "America/Sao_Paulo"


async def test_a_smaller_queue_holds_for_the_next_task(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        fleet.send(task("night-1"))
        await fleet.heard_event("night-1", TaskState.ACCEPTED)
        wanted = load(config_file(tmp_path, "\n[tasks]\nqueue_tasks = 1\n", base=config.read_text()), {})
        car.service.adopt(change(car.service.settings, wanted).settings)
        fleet.send(task("night-2"))
        refused = await fleet.heard_event("night-2", TaskState.REJECTED)
        assert refused.reason is not None
        assert refused.reason.code is Reason.QUEUE_FULL
