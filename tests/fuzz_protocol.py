"""`python tests/fuzz_protocol.py TARGET [libFuzzer's options and folders]`: coverage-guided, by atheris.

What ends it is written to `-artifact_prefix`; put into tests/corpus/TARGET it is tried by every later run of the tests.
"""

import random
import sys

import atheris

with atheris.instrument_imports(
    include=["agent.protocol", "agent.admission", "agent.inputs", "agent.fetch.place"]
):
    import protocol_targets
from mutations import Mutator

BYTEWISE = 0.3
"""The share of libFuzzer's own changes, which know what the code compared bytes with."""


def mutated(data: bytes, max_bytes: int, seed: int) -> bytes:
    """The next input, made out of one that libFuzzer keeps."""
    chance = random.Random(seed)  # noqa: S311 - the same for the same seed
    if chance.random() < BYTEWISE:
        changed: bytes = atheris.Mutate(data, max_bytes)
        return changed
    return Mutator(chance).mutate([data])[:max_bytes]


def main() -> None:
    name = sys.argv.pop(1)

    def once(data: bytes) -> None:
        protocol_targets.tried(name, data)

    atheris.Setup(sys.argv, once, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
