"""Bytes that nobody thought of: the wire contract takes them exactly or refuses them, in bounded time and memory."""

import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mutations import MOST_BYTES, Mutator
from protocol_targets import CORPUS, SEEDS, TARGETS, assert_bounded, known, tried

FUZZ_S = float(os.environ.get("FUZZ_S", "20"))
"""For all targets together."""
ROUNDS = 10_000
MEASURED = 100
"""Of these the memory is measured, which makes them slow."""


@pytest.mark.parametrize("name", TARGETS)
def test_good_messages_are_taken_and_what_once_was_worth_keeping_does_no_harm(name: str) -> None:
    for data in SEEDS[name]:
        assert tried(name, data)
    for data in known(name):
        tried(name, data)
        assert_bounded(name, data)


def test_every_file_of_the_corpus_belongs_to_a_target_and_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert all(path.stat().st_size <= MOST_BYTES for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("name", TARGETS)
def test_good_messages_that_were_changed_are_taken_exactly_or_refused(name: str) -> None:
    seed = time.time_ns()
    mutator, messages = Mutator(random.Random(seed)), known(name)  # noqa: S311 - the seed makes it happen again
    for number in range(ROUNDS):
        data = mutator.mutate(messages)
        try:
            tried(name, data)
            if number < MEASURED:
                assert_bounded(name, data)
        except Exception as broken:
            raise AssertionError(f"seed {seed}; keep it in tests/corpus/{name}: {data!r}") from broken


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="no atheris for this machine: pip install atheris"
)
@pytest.mark.parametrize("name", TARGETS)
def test_the_fuzzer_finds_nothing(name: str, tmp_path: Path) -> None:
    for number, data in enumerate(SEEDS[name]):
        (tmp_path / str(number)).write_bytes(data)
    kept = CORPUS / name
    options = (
        f"-max_total_time={max(1, round(FUZZ_S / len(TARGETS)))}",
        f"-max_len={MOST_BYTES}",
        "-timeout=10",
        f"-artifact_prefix={kept}/",
    )
    fuzzed = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz_protocol.py"), name, *options, tmp_path, kept],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert fuzzed.returncode == 0, f"the input is in {kept}\n{fuzzed.stdout[-2000:]}\n{fuzzed.stderr[-2000:]}"
