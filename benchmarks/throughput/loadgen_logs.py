"""What MLPerf's load generator says of a test, out of its detail log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

DETAIL: Final = "mlperf_log_detail.txt"
PREFIX: Final = ":::MLLOG "
VALID: Final = "VALID"
NS_PER_MS: Final = 1e6
RATES: Final = (
    "result_qps_with_loadgen_overhead",
    "result_samples_per_second",
    "result_completed_samples_per_sec",
)
"""What counts as throughput of SingleStream, Offline and Server; each test has one of them."""


class LogsIncompleteError(Exception):
    """The test did not come to its end: the log has no result."""


class Verdict(NamedTuple):
    """The result of one test. `why_invalid` is in loadgen's words, empty for a valid one."""

    version: str
    valid: bool
    why_invalid: tuple[str, ...]
    throughput_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


class _Entry(msgspec.Struct):
    key: str
    value: Any


def verdict(folder: Path) -> Verdict:
    """Raises `LogsIncompleteError` where the test was not finished."""
    file = folder / DETAIL
    found = dict(_entries(file))
    try:
        return Verdict(
            version=str(found["loadgen_version"]),
            valid=found["result_validity"] == VALID,
            why_invalid=tuple(_reasons(found)),
            throughput_per_s=float(next(found[key] for key in RATES if key in found)),
            p50_ms=found["result_50.00_percentile_latency_ns"] / NS_PER_MS,
            p90_ms=found["result_90.00_percentile_latency_ns"] / NS_PER_MS,
            p99_ms=found["result_99.00_percentile_latency_ns"] / NS_PER_MS,
        )
    except (KeyError, StopIteration) as error:
        raise LogsIncompleteError(f"{file}: has no result, {error or 'no rate'} is missing") from error


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise LogsIncompleteError(f"{file}: cannot be read: {error.strerror}") from error
    for line in lines:
        if line.startswith(PREFIX):
            try:
                entry = msgspec.json.decode(line.removeprefix(PREFIX), type=_Entry)
            except msgspec.MsgspecError as error:
                raise LogsIncompleteError(f"{file}: is cut off: {error}") from error
            yield entry.key, entry.value


def _reasons(found: dict[str, Any]) -> Iterator[str]:
    """One for each rule that was broken; too few queries for the percentile are told as `early_stopping_result`."""
    if found["result_validity"] == VALID:
        return
    said = [found.get("result_invalid_reason", ""), found.get("early_stopping_result", "")]
    for text in said:
        if words := " ".join(str(text).split()):
            yield words
