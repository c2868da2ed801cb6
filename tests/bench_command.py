"""`python -m benchmarks` as a user calls it, in this process."""

from typing import NamedTuple

import pytest

from benchmarks.__main__ import main


class Called(NamedTuple):
    code: object
    out: str
    err: str


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> Called:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return Called(ended.value.code, out, err)
