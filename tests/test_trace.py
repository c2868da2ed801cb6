"""The fleet's trace comes back with everything that is said about its task, and a malformed one costs nobody a task."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agents import TOPICS, agent, write_config
from hypothesis import given
from hypothesis import strategies as st
from wire_fleet import NULL_SHA256, WITHIN_S, task, wire_fleet

from agent.link import LinkOptions
from agent.protocol import framing
from agent.protocol.messages import Carried, Datatype, Event, ModelFormat, ModelRef, Result, TaskState
from agent.protocol.reasons import Reason
from agent.protocol.trace import traceparent_of
from firmware_shims import vss
from fleet.broker import Broker, MosquittoBroker
from fleet.client import FleetClient, Input
from fleet.dispatcher import Dispatcher

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
SLOW_US = 60_000


def traced(value: object) -> dict[str, Any]:
    return {"traceparent": value}


def parents(messages: list[Event] | list[Result]) -> set[str | None]:
    return {
        None if isinstance(message.parameters, msgspec.UnsetType) else message.parameters.traceparent
        for message in messages
    }


# The cases of W3C's own trace-context test suite that are about `traceparent`


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-03", f"00-{TRACE}-{SPAN}-03"),
        (f"cc-{TRACE}-{SPAN}-01", TRACEPARENT),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", TRACEPARENT),
        (f"cc-{TRACE}-{SPAN}-01-", TRACEPARENT),
        (f"fe-{TRACE}-{SPAN}-fe", f"00-{TRACE}-{SPAN}-00"),
    ],
)
def test_a_valid_trace_is_carried_in_the_version_that_everybody_reads(value: str, carried: str) -> None:
    assert traceparent_of(traced(value)) == carried


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}a-{SPAN}-01",
        f"00-{TRACE}-{SPAN}a-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
        f"00-{TRACE}-{SPAN}-٠١",  # noqa: RUF001 - digits, but not those
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1000}",
        None,
        7,
        [TRACEPARENT],
        {"value": TRACEPARENT},
    ],
)
def test_a_malformed_trace_is_none(value: object) -> None:
    assert traceparent_of(traced(value)) is None


@pytest.mark.parametrize("parameters", [None, [], "traceparent", {}, {"Traceparent": TRACEPARENT}])
def test_parameters_without_a_trace_have_none(parameters: object) -> None:
    assert traceparent_of(parameters) is None


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")))
def test_what_is_carried_fits_the_published_schema(value: str) -> None:
    carried = traceparent_of(traced(value))
    schema = json.loads((Path(__file__).parents[1] / "docs/protocol/event.schema.json").read_text())
    pattern = schema["$defs"]["Carried"]["properties"]["traceparent"]["anyOf"][0]["pattern"]
    assert carried is None or re.search(pattern, carried)
    if carried is not None:
        msgspec.convert({"traceparent": carried}, Carried)


async def test_events_and_results_of_a_task_have_its_trace_and_no_other(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("traced", count=12, parameters=traced(TRACEPARENT)))
        await car.until_rows(2)
        car.car.set(vss.DRIVER_DOOR, True)
        await fleet.heard_event("traced", TaskState.PREEMPTED)
        car.car.set(vss.DRIVER_DOOR, False)
        fleet.send(task("untraced", count=2))
        fleet.send(task("cut", count=2, parameters=traced(TRACEPARENT[:-1])))
        names = "traced", "untraced", "cut"
        await fleet.until(lambda: all(fleet.is_final(name) for name in names), "every answer")
    for name, trace in (("traced", TRACEPARENT), ("untraced", None), ("cut", None)):
        events = [event for event in fleet.events if event.id == name]
        results = [result for result, _ in fleet.results if result.id == name]
        assert parents(events) == parents(results) == {trace}


async def test_a_refusal_has_the_trace_also_of_a_task_that_cannot_be_read(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("elsewhere", audience="veh-2", parameters=traced(TRACEPARENT)))
        message, tail = task("cut-off", parameters=traced(TRACEPARENT))
        fleet.publish(TOPICS.task, framing.encode(message, [tail[:-1]]))
        for name, code in (("elsewhere", Reason.WRONG_AUDIENCE), ("cut-off", Reason.BAD_TENSOR)):
            event = await fleet.heard_event(name, TaskState.REJECTED)
            assert event.reason is not None
            assert event.reason.code is code
            assert event.parameters == Carried(TRACEPARENT)


async def test_an_end_that_is_told_after_a_restart_still_has_its_trace(
    tmp_path: Path, mosquitto: type[MosquittoBroker]
) -> None:
    """The car ends the task while the broker is away, and sleeps before it is back."""
    with mosquitto() as broker:
        config = write_config(tmp_path, broker.port, run_us=SLOW_US)
        async with agent(config) as car, wire_fleet(broker.port, TOPICS) as fleet:
            fleet.send(task("traced", count=100, lease_s=1.5, parameters=traced(TRACEPARENT)))
            await car.until_rows(2)
            await asyncio.to_thread(broker.stop)
            await car.until(lambda: not car.service.executor.jobs, "its lease has run out")
    with mosquitto(port=broker.port) as broker:
        async with wire_fleet(broker.port, TOPICS) as fleet, agent(config):
            event = await fleet.heard_event("traced", TaskState.EXPIRED)
            assert event.parameters == Carried(TRACEPARENT)


async def test_a_fleet_gives_a_trace_to_its_client_and_finds_it_in_the_answer(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    null = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
    rows = [Input("x", Datatype.UINT8, [4, 16], bytes(64))]
    options = LinkOptions(host="127.0.0.1", port=iotcore.port, client_id="backend-1")
    async with agent(config), FleetClient(options) as fleet:
        await fleet.until_up(WITHIN_S)
        answer = await fleet.vehicle("veh-1", "BR-SP").submit(null, rows, parameters=traced(TRACEPARENT))
    assert parents(list(answer.events)) == {TRACEPARENT}


async def test_the_dispatcher_passes_a_trace_on_and_knows_the_work_without_it(
    tmp_path: Path, iotcore: Broker
) -> None:
    """A caller that lost the outcome of `add` says it again, from another span of its own."""
    config = write_config(tmp_path, iotcore.port)
    null = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
    rows = [Input("x", Datatype.UINT8, [4, 16], bytes(64))]
    again = TRACEPARENT.replace(SPAN, "b7ad6b7169203331")
    async with wire_fleet(iotcore.port, TOPICS, settles=False) as heard:
        options = LinkOptions(host="127.0.0.1", port=iotcore.port, client_id="backend-1")
        async with Dispatcher(FleetClient(options), tmp_path / "queue.db") as dispatcher:
            await dispatcher.add(null, rows, id="night-1", parameters=traced(TRACEPARENT) | {"job": 7})
            await dispatcher.add(null, rows, id="night-1", parameters=traced(again) | {"job": 7})
            with pytest.raises(ValueError, match="other work has been queued under this id"):
                await dispatcher.add(null, rows, id="night-1", parameters=traced(TRACEPARENT) | {"job": 8})
            async with agent(config):
                finished = await anext(dispatcher.answers())
                assert finished.answer().rows == 4
                await heard.until(lambda: heard.is_final("night-1"), "the answer")
    assert parents([result for result, _ in heard.results]) == {TRACEPARENT}
