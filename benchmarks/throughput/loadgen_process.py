"""MLPerf's load generator in a process of its own: `python -m benchmarks.throughput.loadgen_process SOCKET_FD`.

Its tests cannot be stopped from Python, but a process can be killed; and its threads take the interpreter's lock of
nobody else. Reads a `LoadgenTest` as one line of JSON from stdin; then each sample that loadgen wants goes out through the
socket as (id, index), and comes back as its id once it has been answered.
"""

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

ISSUED: Final = struct.Struct("<QQ")
"""What loadgen calls the sample, and which one of the model's samples it is."""
ANSWERED: Final = struct.Struct("<Q")
READ_BYTES: Final = 1 << 16
NS_PER_MS: Final = 1_000_000

LoadgenScenario = Literal["SingleStream", "Offline", "Server"]


class LoadgenTest(msgspec.Struct, frozen=True):
    """What loadgen is asked for. `expected_*` is how it estimates the number of queries to prepare."""

    scenario: LoadgenScenario
    logs: str
    samples: int
    min_duration_s: float
    min_queries: int
    expected_latency_ms: float
    expected_rate_per_s: float
    percentile: float
    latency_bound_ms: float


class _Sample(Protocol):
    """mlperf_loadgen.QuerySample."""

    id: int
    index: int


def main(socket_fd: int) -> None:
    """Run one test; returns when its logs are written, or ends the process when the other end is gone."""
    import mlperf_loadgen  # noqa: PLC0415 - whoever names a `LoadgenTest` needs no load generator

    test = msgspec.json.decode(sys.stdin.readline(), type=LoadgenTest)
    with socket.socket(fileno=socket_fd) as line:
        threading.Thread(target=_pass_answers, args=(line, mlperf_loadgen), daemon=True).start()
        system = mlperf_loadgen.ConstructSUT(_issuing(line), _nothing)
        samples = mlperf_loadgen.ConstructQSL(test.samples, test.samples, _nothing, _nothing)
        settings, logs = _settings(mlperf_loadgen, test), _logs(mlperf_loadgen, test.logs)
        mlperf_loadgen.StartTestWithLogSettings(system, samples, settings, logs, "")
        mlperf_loadgen.DestroyQSL(samples)
        mlperf_loadgen.DestroySUT(system)


def _issuing(line: socket.socket) -> Callable[[Sequence[_Sample]], None]:
    def issue(samples: Sequence[_Sample]) -> None:
        line.sendall(b"".join(ISSUED.pack(sample.id, sample.index) for sample in samples))

    return issue


def _pass_answers(line: socket.socket, loadgen: Any) -> None:
    data = b""
    while received := line.recv(READ_BYTES):
        data += received
        whole = len(data) - len(data) % ANSWERED.size
        answers = [loadgen.QuerySampleResponse(each, 0, 0) for (each,) in ANSWERED.iter_unpack(data[:whole])]
        loadgen.QuerySamplesComplete(answers)
        data = data[whole:]
    os._exit(os.EX_UNAVAILABLE)  # nobody is there to answer any more, and a test cannot be given up


def _nothing(*_: object) -> None:
    """The samples lie in memory already, and there is nothing to flush."""


def _settings(loadgen: Any, test: LoadgenTest) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, test.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(test.min_duration_s * 1000)
    settings.min_query_count = test.min_queries
    match test.scenario:
        case "SingleStream":
            settings.single_stream_expected_latency_ns = round(test.expected_latency_ms * NS_PER_MS)
            settings.single_stream_target_latency_percentile = test.percentile
        case "Offline":
            settings.offline_expected_qps = test.expected_rate_per_s
        case "Server":
            settings.server_target_qps = test.expected_rate_per_s
            settings.server_target_latency_ns = round(test.latency_bound_ms * NS_PER_MS)
            settings.server_target_latency_percentile = test.percentile
    return settings


def _logs(loadgen: Any, folder: str) -> Any:
    logs = loadgen.LogSettings()
    logs.log_output.outdir = folder
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    return logs


if __name__ == "__main__":
    main(int(sys.argv[1]))
