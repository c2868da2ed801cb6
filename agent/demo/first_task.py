"""A first task to send by hand: one file, unsigned, with the answer as JSON."""

import datetime as dt
from pathlib import Path
from typing import Final

from agent.demo import model
from agent.demo.features import ROW
from agent.demo.files import Sample
from agent.demo.workload import MODEL, labels_of, tensor
from agent.protocol import framing, tensors
from agent.protocol.messages import (
    Event,
    OutputParameters,
    RequestedOutput,
    Result,
    Task,
    Tensor,
)
from agent.protocol.topics import Topics
from agent.settings import Settings

TASK_ID: Final = "first-task"
FILE: Final = f"{TASK_ID}.json"
VALID: Final = dt.timedelta(hours=24)


def first_task(sample: Sample, vehicle: str, now: dt.datetime) -> bytes:
    """The message: everything of it is JSON, on one line."""
    described = tensor([sample])
    task = Task(
        id=TASK_ID,
        attempt=1,
        audience=vehicle,
        issued_at=now,
        expires_at=now + VALID,
        lease_s=60,
        model=MODEL,
        inputs=[
            Tensor(
                described.name, described.datatype, list(described.shape), data=list(ROW.unpack(sample.row))
            )
        ],
        outputs=[RequestedOutput(model.OUTPUT, OutputParameters(binary_data=False))],
    )
    return framing.encode(task)


def invitation(path: Path, sample: Sample, settings: Settings) -> list[str]:
    """How to send it, and how to listen."""
    mqtt = settings.mqtt
    topics = Topics(mqtt.root, settings.vehicle.region, settings.vehicle.id)
    whose = f"--vehicle {settings.vehicle.id} --region {settings.vehicle.region}"
    where = f"-V 5 -q 1 -h {mqtt.host} -p {mqtt.port}"
    return [
        "",
        f"The car stays. A first task by hand, unsigned, asks what {sample.path} is.",
        "Listen in one terminal:",
        "",
        f"  mosquitto_sub {where} -t '{topics.event}' -t '{topics.result}'",
        "",
        "and send it from another:",
        "",
        f"  mosquitto_pub {where} -t '{topics.task}' -f {path}",
        "",
        f"A model of your own goes to {settings.models.source}/SHA256, without an extension, and its task with",
        "",
        f"  parkwatt fleet submit TASK.json {whose} --port {mqtt.port}",
        "",
        "What arrives is shown here too. Ctrl-C ends the demo.",
    ]


def said(message: Event | Result, tail: memoryview, labels: tuple[str, ...]) -> str:
    """What arrived for a task that was sent by hand."""
    if isinstance(message, Event):
        reason = (
            f" ({message.reason.code.value} {message.reason.name}: {message.reason.text})"
            if message.reason
            else ""
        )
        return f"event for {message.id}: {message.state.value}{reason}"
    usage = message.usage
    spent = "no meter" if usage.energy_j is None else f"{usage.energy_j:.4f} J by {usage.energy_source.value}"
    return (
        f"result for {message.id}: {_answer(message, tail, labels)} ({usage.device_s * 1000:.1f} ms, {spent})"
    )


def _answer(message: Result, tail: memoryview, labels: tuple[str, ...]) -> str:
    """The labels where they were asked for; somebody may have asked for something else."""
    if [output.name for output in message.outputs] != [model.OUTPUT]:
        return f"rows {message.rows[0]} to {message.rows[1]}"
    (raw,) = tensors.unpack(message.outputs, tail)
    return ", ".join(labels_of(raw, labels))
