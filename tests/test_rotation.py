"""Certificates, keys, authorities and passwords are renewed on disk: the link takes them up and keeps its session."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import RunningAgent, agent, write_config
from config_files import config_file
from fake_broker import FakeBroker
from link_probe import Probe, eventually, running
from shipped_broker import Premises, ShippedBroker, over_tls
from wire_fleet import NULL_SHA256

from agent.link import Link, LinkOptions, Outcome, Retry
from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from agent.protocol.topics import Topics
from agent.settings import ConfigError, load
from fleet.client import FleetClient, Input

TASK = Topics("fleet/v1", "BR", "veh-1").task
LOOK_S = 0.02


def renew(premises: Premises, terms: dict[str, Any], name: str, *, backend: bool = False) -> None:
    """Put a new certificate and key in the places of the old ones, each at once, the one after the other."""
    authority = premises.backends if backend else premises.vehicles
    certificate, key = authority.issue(f"{name}-new", common=name)
    certificate.replace(terms["cert_file"])
    key.replace(terms["key_file"])


@asynccontextmanager
async def connected(probe: Probe, shipped: ShippedBroker, terms: dict[str, Any]) -> AsyncIterator[Link]:
    link = probe.link(
        shipped.port, client_id="veh-1", subscriptions=(TASK,), renewal_s=LOOK_S, retry=Retry(), **terms
    )
    async with running(link):
        await eventually(lambda: link.up)
        yield link


async def looked_at(link: Link) -> None:
    """Wait for two looks at the files, without any change to the connection."""
    before = link.status
    await asyncio.sleep(4 * LOOK_S)
    assert link.status == before


async def test_a_renewed_certificate_is_taken_up_in_the_same_session(
    premises: Premises, shipped: ShippedBroker
) -> None:
    probe, terms = Probe(), premises.vehicle("veh-1")
    backend = Probe().link(shipped.backend_port, client_id="b", subscriptions=(), **premises.backend())
    async with running(backend), connected(probe, shipped, terms) as link:
        await eventually(lambda: backend.up)
        await backend.publish(TASK, b"not acknowledged yet")
        await eventually(lambda: probe.messages)
        renew(premises, terms, "veh-1")
        await eventually(lambda: probe.ups == [False, True])
        assert link.status.error == "the credentials were renewed"
        await eventually(lambda: probe.payloads == [b"not acknowledged yet"] * 2)
        await looked_at(link)


async def test_a_half_written_pair_is_left_alone_until_the_other_half_is_there(
    premises: Premises, shipped: ShippedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    probe, terms = Probe(), premises.vehicle("veh-1")
    async with connected(probe, shipped, terms) as link:
        certificate, key = premises.vehicles.issue("new", common="veh-1")
        content = certificate.read_bytes()
        for part in (content[:100], content):
            terms["cert_file"].write_bytes(part)
            caplog.clear()
            await eventually(lambda: "changed credentials are not used" in caplog.text)
            await looked_at(link)
            assert len(caplog.records) == 1
        key.replace(terms["key_file"])
        await eventually(lambda: probe.ups == [False, True])


async def test_a_new_key_that_others_may_read_is_not_taken_up(
    premises: Premises, shipped: ShippedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    probe, terms = Probe(), premises.vehicle("veh-1")
    async with connected(probe, shipped, terms) as link:
        terms["key_file"].chmod(0o640)
        await eventually(lambda: f"chmod 0600 {terms['key_file']}" in caplog.text)
        await looked_at(link)
        terms["key_file"].chmod(0o600)
        await eventually(lambda: probe.ups == [False, True])


async def test_files_that_are_gone_do_no_harm_to_a_connection(
    premises: Premises, shipped: ShippedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    probe, terms = Probe(), premises.vehicle("veh-1")
    async with connected(probe, shipped, terms) as link:
        content = terms["ca_file"].read_bytes()
        terms["ca_file"].unlink()
        await eventually(lambda: "changed credentials are not used" in caplog.text)
        await looked_at(link)
        terms["ca_file"].write_bytes(content)
        await eventually(lambda: probe.ups == [False, True])


async def test_a_renewed_password_is_sent_at_the_next_connect(tmp_path: Path) -> None:
    secret = tmp_path / "mqtt.password"
    secret.touch(0o600)
    secret.write_text("old\n")
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, username="veh-1", password_file=secret, renewal_s=LOOK_S)
        async with running(link):
            first = await broker.welcome()
            await eventually(lambda: link.up)
            secret.write_text("new\n")
            second = await broker.welcome()
            assert (first.connect.password, second.connect.password) == (b"old", b"new")
            assert not second.connect.clean_start


async def test_a_password_that_is_not_text_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "mqtt.password"
    secret.touch(0o600)
    secret.write_bytes(b"\xff\xfe")
    async with FakeBroker() as broker:
        link = Probe().link(broker.port, username="veh-1", password_file=secret)
        async with running(link):
            await eventually(lambda: f"{secret}: not UTF-8" in link.status.error)


def test_a_reconnect_of_our_own_waits_for_nothing_and_counts_against_nobody() -> None:
    retry = Retry(jitter=lambda: 1.0)
    for _ in range(20):
        assert retry.after(Outcome(up_s=0.1, planned=True)) == 0
        assert not retry.clean_start
    assert retry.after(Outcome(up_s=0.1)) == 0.5


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
@pytest.mark.parametrize("key", ["key_file", "password_file"])
def test_a_secret_that_others_may_use_is_refused_in_one_line(tmp_path: Path, key: str, mode: int) -> None:
    for name in ("key_file", "password_file", "cert_file"):
        (tmp_path / name).touch(0o600)
    (tmp_path / key).chmod(mode)
    lines = "".join(f'{name} = "{tmp_path / name}"\n' for name in ("key_file", "password_file", "cert_file"))
    config = config_file(tmp_path, f'[mqtt]\nca_file = "/dev/null"\nusername = "u"\n{lines}')
    with pytest.raises(ConfigError) as error:
        load(config, {})
    (problem,) = error.value.problems
    assert f"mqtt.{key}" in problem
    assert f"mode {mode:04o}" in problem
    assert "chmod 0600" in problem
    (tmp_path / key).chmod(0o600)
    load(config, {})


async def until_taken_up(car: RunningAgent, times: int) -> None:
    await car.until(lambda: car.service.link.status.connects == times + 1, f"{times} renewals")


async def test_certificates_are_renewed_under_load_and_every_row_is_answered_once(
    tmp_path: Path, premises: Premises, shipped: ShippedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the car and of the fleet, at the same time."""
    caplog.set_level(logging.INFO, "agent.link")
    of_car, of_fleet = premises.vehicle("veh-1"), premises.backend()
    config = over_tls(write_config(tmp_path, shipped.port, run_us=5_000), of_car)
    options = LinkOptions(
        host="127.0.0.1", port=shipped.backend_port, client_id="fleet", renewal_s=0.5, **of_fleet
    )
    model = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
    data = bytes(range(16))
    async with agent(config) as car, FleetClient(options, outstanding=4) as fleet:
        vehicle = fleet.vehicle("veh-1", "BR")
        renewing = asyncio.ensure_future(renewals(car, premises, of_car, of_fleet))
        answers = 0
        while not renewing.done():
            batch = [vehicle.submit(model, [Input("x", Datatype.UINT8, [8, 2], data)]) for _ in range(8)]
            for answer in await asyncio.gather(*batch):
                (output,) = answer.outputs.values()
                assert output.data == data
                assert answer.attempts == 1
                answers += 1
        await renewing
        assert car.rows_done == answers * 8
        await car.until_settled()
    connects = [record.getMessage() for record in caplog.records if "connected to" in record.getMessage()]
    assert sum("session resumed" in line for line in connects) >= 4
    assert sum("new session" in line for line in connects) == 2


async def renewals(
    car: RunningAgent, premises: Premises, of_car: dict[str, Any], of_fleet: dict[str, Any]
) -> None:
    for times in (1, 2):
        renew(premises, of_car, "veh-1")
        renew(premises, of_fleet, "fleet-backend", backend=True)
        await until_taken_up(car, times)
