"""Backends are found by name, and every mistake in a name or an option says what would be right."""

import re

import pytest
from pydantic import ValidationError

from agent.protocol.reasons import Reason
from backends import kernel, registry
from backends.cpu import Cpu


def test_built_in_backends_are_found_by_name_and_by_class() -> None:
    assert registry.find("cpu") is registry.find("backends.cpu:Cpu") is Cpu
    assert set(registry.known()) >= {"cpu", "null"}


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ("cpx", "'cpx' is not known: take cpu, fault, fsd, null, nvidia, tflite or MODULE:CLASS"),
        ("no.such.module:Chip", "No module named 'no'"),
        ("backends.cpu:Gpu", "has no attribute 'Gpu'"),
        ("pathlib:Path", "is no backend: it has no Options, probe, load"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(use: str, says: str) -> None:
    with pytest.raises(registry.UnknownBackend, match=re.escape(says)):
        registry.find(use)


def test_options_have_defaults_and_refuse_what_they_do_not_know() -> None:
    assert registry.validate_options("cpu", {}).model_dump() == {
        "threads": 1,
        "spinning": False,
        "cores": (),
        "arena_bytes": 1 << 30,
        "optimisation": "all",
    }
    for wrong in ({"thread": 2}, {"threads": 0}, {"optimisation": "most"}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            registry.validate_options("cpu", wrong)


def test_the_codes_of_the_kernel_interface_are_those_of_the_wire_contract() -> None:
    codes = {name: value for name, value in vars(kernel).items() if type(value) is int}
    assert len(codes) == 6
    for name, value in codes.items():
        assert Reason[name] == value
