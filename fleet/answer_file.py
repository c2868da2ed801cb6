"""Answers as files: `<task id>.json`, and beside it what JSON cannot say."""

import os
from pathlib import Path
from typing import Any

import msgspec

from agent.protocol import tensors
from agent.protocol.messages import ModelRef
from agent.protocol.reasons import Refused
from fleet.answer import Answer, TaskFailed


def write_answer(directory: Path, task_id: str, model: ModelRef, answer: Answer) -> None:
    """Write `<task id>.json`; an output that JSON cannot say goes into a file beside it, which it names.

    Each file is whole and on disk, or not there under its name.
    """
    outputs: list[dict[str, Any]] = []
    for index, (name, output) in enumerate(answer.outputs.items()):
        shape = [answer.rows, *output.row_shape]
        described: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": shape}
        try:
            described["data"] = tensors.to_json(output.datatype, shape, output.data)
        except Refused:
            described["file"] = f"{task_id}.{index}.bin"
            _write(directory / described["file"], output.data)
        outputs.append(described)
    document = {
        "id": task_id,
        "model_name": model.name,
        "model_version": model.version,
        "attempts": answer.attempts,
        "outputs": outputs,
        "usage": answer.usage,
    }
    _write_json(directory / f"{task_id}.json", document)


def write_failure(directory: Path, task_id: str, failure: TaskFailed) -> None:
    """Write `<task id>.failed.json`."""
    document = {
        "id": task_id,
        "code": failure.code,
        "name": failure.name,
        "text": failure.text,
        "rows_done": failure.rows_done,
    }
    _write_json(directory / f"{task_id}.failed.json", document)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    _write(path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
