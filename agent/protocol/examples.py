"""One good message of each kind, for the published documents; the tests hold them against the schemas."""

import datetime as dt
import hashlib
from typing import Final

from agent.protocol import messages
from agent.protocol.reasons import Reason

ISSUED_AT: Final = dt.datetime(2026, 11, 22, 1, 0, tzinfo=dt.UTC)
TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MODEL_SHA256: Final = hashlib.sha256(b"the bytes of the model file").hexdigest()

TASK: Final = messages.Task(
    id="01JD9Y6MZX8Q4T2B7C5E3F1G0H",
    attempt=1,
    audience="veh-0001",
    issued_at=ISSUED_AT,
    expires_at=ISSUED_AT + dt.timedelta(minutes=5),
    lease_s=60,
    model=messages.ModelRef("magika", "3.3", MODEL_SHA256, messages.ModelFormat.ONNX),
    residency=["BR"],
    limits=messages.Limits(runtime_s=120),
    inputs=[
        messages.Tensor(
            "bytes",
            messages.Datatype.INT32,
            [2, 4],
            messages.TensorParameters(binary_data_size=32),
        )
    ],
    outputs=[messages.RequestedOutput("target_label")],
    parameters={"traceparent": TRACEPARENT},
)
TASK_TAIL: Final = bytes(range(32))

TASK_IN_JSON: Final = messages.Task(
    id="first-task",
    attempt=1,
    audience="veh-0001",
    issued_at=ISSUED_AT,
    expires_at=ISSUED_AT + dt.timedelta(minutes=5),
    lease_s=60,
    model=TASK.model,
    inputs=[
        messages.Tensor("bytes", messages.Datatype.INT32, [2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8]]),
        messages.Tensor(
            "scale", messages.Datatype.FP32, [1], messages.TensorParameters(shared=True), data=[0.5]
        ),
    ],
    outputs=[messages.RequestedOutput("target_label", messages.OutputParameters(binary_data=False))],
)

CANCEL: Final = messages.Cancel("veh-0001", ISSUED_AT, TASK.id, 1)
DRAIN: Final = messages.Drain("veh-0001", ISSUED_AT)
RESUME: Final = messages.Resume("veh-0001", ISSUED_AT)
SETTLED: Final = messages.Settled("veh-0001", ISSUED_AT, [(TASK.id, 1, 0, 2)])

EVENT: Final = messages.Event(
    id=TASK.id,
    attempt=1,
    state=messages.TaskState.PREEMPTED,
    at=ISSUED_AT + dt.timedelta(seconds=2),
    boot=17,
    seq=4,
    rows_done=1,
    rows_total=2,
    reason=messages.ReasonInfo.of(Reason.OWNER_PRESENT, "driver door open"),
    parameters=messages.Carried(TRACEPARENT),
)

RESULT: Final = messages.Result(
    id=TASK.id,
    attempt=1,
    model_name="magika",
    model_version="3.3",
    rows=(0, 2),
    final=True,
    outputs=[
        messages.Tensor(
            "target_label", messages.Datatype.FP32, [2, 1], messages.TensorParameters(binary_data_size=8)
        )
    ],
    usage=messages.Usage(
        wall_s=0.021,
        device_s=0.018,
        energy_j=0.9,
        energy_source=messages.EnergySource.MODEL,
        idle_j=0.1,
        backend="cpu",
        device="cpu",
    ),
    parameters=messages.Carried(TRACEPARENT),
)

STATE: Final = messages.State(
    vehicle="veh-0001",
    region="BR",
    boot=17,
    seq=5,
    online=True,
    at=ISSUED_AT + dt.timedelta(seconds=2),
    mode=messages.Mode.BLOCKED,
    blockers=[
        messages.Blocker(
            Reason.OWNER_PRESENT,
            Reason.OWNER_PRESENT.label,
            value=True,
            limit=None,
            since=ISSUED_AT + dt.timedelta(seconds=2),
        )
    ],
    budget_w=0,
    expected_s=None,
    backends=[messages.BackendState("cpu", "cpu", ["onnx"], 60, 20, usable=True)],
    models=[MODEL_SHA256],
    open=[messages.OpenTask(TASK.id, 1, messages.TaskState.PREEMPTED, 1)],
    version="0.1.0",
)
OFFLINE: Final = messages.Offline("veh-0001", 17)
