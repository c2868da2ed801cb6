"""Turns finished rows into result messages that fit the link."""

import math
from dataclasses import dataclass

from agent.job import Chunk, Job, Origin, Spending, merged, usage
from agent.protocol import framing, tensors
from agent.protocol.messages import Datatype, Result, Tensor, TensorParameters
from agent.protocol.reasons import Reason, Refused
from agent.protocol.trace import carried

HEADER_BYTES = 4096
"""Room for the line of JSON in a result."""
JSON_BYTES_PER_BYTE = 8
"""A number in JSON takes up to so many times its binary bytes."""


@dataclass(frozen=True, slots=True)
class ResultBody:
    """An encoded result for rows `[begin, end)`, and what they took."""

    begin: int
    end: int
    body: bytes
    final: bool
    spending: Spending


@dataclass(frozen=True, slots=True)
class ResultWriter:
    """Knows the limit of the link."""

    max_payload_bytes: int

    def begin(self, job: Job, origin: Origin) -> None:
        """Note where the rows of a job come from; raises Refused (101) when one row is larger than a message."""
        row_bytes = _row_bytes(job, origin)
        limit = self.max_payload_bytes - HEADER_BYTES
        if row_bytes > limit:
            less = "binary" if _json_outputs(job) else "fewer"
            raise Refused(
                Reason.TOO_LARGE,
                f"one row of outputs takes up to {row_bytes} bytes, a result holds {limit}: ask for {less} outputs",
            )
        job.origin = origin

    def check(self, job: Job, chunk: Chunk) -> None:
        """Raise Refused (102) when rows were asked for as JSON and have no JSON form (FP16, NaN, infinity)."""
        in_json = _json_outputs(job)
        if in_json and job.origin is not None:
            for spec, raw in zip(job.origin.outputs, chunk.outputs, strict=True):
                if spec.name in in_json:
                    tensors.to_json(Datatype(spec.datatype), [chunk.end - chunk.begin, *spec.row_shape], raw)

    def take(self, job: Job, *, final: bool) -> list[ResultBody]:
        """Encode the pending rows of a job and forget them; `final` marks the last message."""
        if job.origin is None:
            return []
        origin = job.origin
        limit_bytes = self.max_payload_bytes - HEADER_BYTES
        wholes = list(merged(job.pending, _row_bytes(job, origin), limit_bytes))
        job.pending = []
        last = len(wholes) - 1
        return [
            self._encode(job, whole, origin, final and index == last) for index, whole in enumerate(wholes)
        ]

    def _encode(self, job: Job, chunk: Chunk, origin: Origin, final: bool) -> ResultBody:
        in_json = _json_outputs(job)
        described: list[Tensor] = []
        tails: list[bytes] = []
        for spec, raw in zip(origin.outputs, chunk.outputs, strict=True):
            datatype, shape = Datatype(spec.datatype), [chunk.end - chunk.begin, *spec.row_shape]
            if spec.name in in_json:
                described.append(
                    Tensor(spec.name, datatype, shape, data=tensors.to_json(datatype, shape, raw))
                )
            else:
                described.append(
                    Tensor(spec.name, datatype, shape, TensorParameters(binary_data_size=len(raw)))
                )
                tails.append(raw)
        result = Result(
            id=job.task.id,
            attempt=job.task.attempt,
            model_name=job.task.model.name,
            model_version=job.task.model.version,
            rows=(chunk.begin, chunk.end),
            final=final,
            outputs=described,
            usage=usage(chunk.spending, origin),
            parameters=carried(job.traceparent),
        )
        return ResultBody(chunk.begin, chunk.end, framing.encode(result, tails), final, chunk.spending)


def _json_outputs(job: Job) -> set[str]:
    return {output.name for output in job.task.outputs if not output.parameters.binary_data}


def _row_bytes(job: Job, origin: Origin) -> int:
    in_json = _json_outputs(job)
    return sum(
        math.prod(spec.row_shape)
        * tensors.ITEM_BYTES[Datatype(spec.datatype)]
        * (JSON_BYTES_PER_BYTE if spec.name in in_json else 1)
        for spec in origin.outputs
    )
