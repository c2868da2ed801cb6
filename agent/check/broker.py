"""The broker, what the vehicle shows it to prove itself, and the keys that the fleet's signatures are checked with."""

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.broker import link_options
from agent.check.certificates import validities
from agent.check.finding import Finding, broken, works
from agent.check.overheard import warnings_of
from agent.check.person import ENTER, READ, Person
from agent.link import Link
from agent.link.credentials import Credentials
from agent.settings import MqttSettings, Settings
from agent.status import Status
from agent.trusted_keys import look_into

BROKER_S: Final = 3.0
MEND: Final = (
    "start the broker there, or correct [mqtt]: host, port, username, password_file, ca_file, cert_file"
)


async def broker(settings: Settings) -> Finding:
    """Connect with the vehicle's own credentials, and leave its session and subscriptions as they are."""
    name = f"{settings.mqtt.host}:{settings.mqtt.port}"
    up = asyncio.Event()
    link = Link(link_options(settings), on_message=lambda _: None, on_up=lambda _: up.set())
    with warnings_of("agent.link"):  # they say what the finding says
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(BROKER_S):
                await up.wait()
        except TimeoutError:
            problem = link.status.error or f"no answer within {BROKER_S:g} s"
            return broken("broker", name, problem, MEND)
        finally:
            await link.close()
            await running
    return works("broker", name, f"accepts {settings.vehicle.id}")


def broker_of_running(settings: Settings, running: Status) -> Finding:
    """A second connection would throw the running agent off the broker: take its own word."""
    name = f"{settings.mqtt.host}:{settings.mqtt.port}"
    if running.link.up:
        return works("broker", name, "the agent that runs now is connected")
    problem = f"the agent that runs now is not connected: {running.link.last_error}"
    return broken("broker", name, problem, MEND)


def tls(settings: Settings, person: Person, now: dt.datetime) -> Iterator[Finding]:
    """The files of the connection: whose they are, whether they belong together, and until when they hold."""
    mqtt = settings.mqtt
    if mqtt.ca_file is None:
        yield works("tls", "mqtt.ca_file", f"not set: what goes to {mqtt.host} can be read on its way")
        return
    try:
        Credentials(link_options(settings))
    except OSError as error:
        yield broken(
            "tls", str(mqtt.ca_file), str(error), "name files that belong together in section [mqtt]"
        )
        return
    for key, path in _files(mqtt):
        if not person.may(path, READ):
            fix = f"chown {person.name}: {path}, and let it enter the folders above"
            yield broken("tls", str(path), f"{person.name} cannot read mqtt.{key}", fix)
        elif key in {"ca_file", "cert_file"}:
            yield _valid(key, path, now)


def _files(mqtt: MqttSettings) -> Iterator[tuple[str, Path]]:
    for key in ("ca_file", "cert_file", "key_file", "password_file"):
        path = getattr(mqtt, key)
        if path is not None:
            yield key, path


def _valid(key: str, path: Path, now: dt.datetime) -> Finding:
    """Of several certificates the one that ends first counts: which of them a chain goes through is not known."""
    fix = "renew it; the agent takes up the new file by itself"
    try:
        found = validities(path)
    except ValueError as error:
        return broken("tls", str(path), f"mqtt.{key} {error}", "save it as PEM")
    if not found:
        return broken("tls", str(path), f"mqtt.{key} holds no certificate", "save it as PEM")
    ends, begins = min(each.ends for each in found), max(each.begins for each in found)
    if ends <= now:
        return broken(
            "tls", str(path), f"mqtt.{key} has expired on {ends:%Y-%m-%d}, it is {now:%Y-%m-%d}", fix
        )
    if begins > now:
        text = f"mqtt.{key} holds from {begins:%Y-%m-%d %H:%M} UTC on, it is {now:%Y-%m-%d %H:%M}"
        return broken("tls", str(path), text, f"set the clock, or {fix}")
    return works("tls", str(path), f"mqtt.{key} holds until {ends:%Y-%m-%d}, {(ends - now).days} days")


def keys(settings: Settings, person: Person) -> Finding:
    """Whether there is a key to check a task's signature with."""
    folder = settings.trust.task_keys_dir
    if not settings.trust.require_signatures:
        return works("keys", str(folder), "not needed: trust.require_signatures is false")
    for file in sorted(folder.glob("*.pem")):
        if not person.may(file, READ):
            fix = f"chgrp {person.name} {file}, chmod 0640 {file}, and let it enter the folders above"
            return broken("keys", str(file), f"{person.name} cannot read it", fix)
    found = look_into(folder)
    if found.problems:
        faults = [problem.rpartition(": ") for problem in found.problems]
        text = "; ".join(fault.removeprefix(f"{folder}: ") for fault, _, _ in faults)
        return broken("keys", str(folder), f"{text}; {found}", "; ".join(fix for _, _, fix in faults))
    if not person.may(folder, READ | ENTER):
        fix = f"let {person.name} read it: chgrp {person.name} {folder}, chmod 0750 {folder}"
        return broken("keys", str(folder), f"{person.name} cannot read it", fix)
    return works("keys", str(folder), str(found))
