"""Check a backend against the kernel interface: a line per check, and for each failure what to do.

Without --model it is given a model of the suite's own: softmax over eight numbers, as ONNX or TFLite.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backends import registry
from backends.contract import CHECKS, Check
from backends.contract.subject import Broken, Subject, given_model, own_model
from backends.kernel import Model

OK: Final = 0
FAILED: Final = 1
NOT_CHECKED: Final = 3
"""Of a check that found nothing to look at; for a command it is no failure."""
SKIP: Final = "skip"
OWN_FORMATS: Final = ("onnx", "tflite")


def title_of(check: Check) -> str:
    """A check's name in plain words."""
    return check.__name__.replace("_", " ")


def tell(check: Check, word: str, *lines: str) -> None:
    """Print the outcome of a check, with what there is to say below it."""
    print(f"{word:<6}{title_of(check)}", *(f"      {line}" for line in lines), sep="\n")  # noqa: T201


def fail(check: Check, seen: str, fix: str) -> int:
    """Print a failure: what was seen, the rule that it breaks, what to do."""
    rule = " ".join((check.__doc__ or "").split())
    tell(check, "FAIL", f"seen: {seen}", f"rule: {rule}", f"fix:  {fix}")
    return FAILED


def run_here(check: Check, subject: Subject) -> int:
    """One check in this process."""
    try:
        seen = check(subject)
    except Broken as broken:
        return fail(check, broken.seen, broken.fix)
    except Exception as error:  # noqa: BLE001 - what a foreign backend raises is its failure
        fix = "raise KernelError with a code for what can go wrong; anything else is a mistake in the backend"
        at = traceback.extract_tb(error.__traceback__)[-1]
        return fail(check, f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})", fix)
    tell(check, SKIP if seen.startswith("not checked") else "ok", seen)
    return OK


def run_apart(check: Check, arguments: Sequence[str], limit_s: float) -> int:
    """One check in a process of its own, which may take `limit_s`."""
    command = [sys.executable, "-m", "backends.contract", *arguments, "--only", check.__name__]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        fix = "find what hangs, or give a slow device more time with --limit"
        return fail(check, f"no answer within {limit_s:g} s", fix)
    marks = ("ok    ", "FAIL  ", f"{SKIP}  ")
    lines = done.stdout.splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith(marks)), None)
    if begin is None or done.returncode not in {OK, FAILED}:
        return fail(
            check, f"the process {_end(done.returncode)}; {_last(lines)}", "no method may end its process"
        )
    print("\n".join(lines[begin:]), flush=True)  # noqa: T201
    return NOT_CHECKED if lines[begin].startswith(SKIP) else done.returncode


def _end(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode} and no answer"


def _last(lines: Sequence[str]) -> str:
    return f"it printed: {' / '.join(lines[-3:])}" if lines else "it printed nothing"


def first_format(use: str, options: dict[str, object]) -> str:
    """The first format of the suite's own models that the backend's devices take."""
    try:
        devices = registry.find(use)(registry.validate_options(use, options)).probe()
    except Exception:  # noqa: BLE001 - a check of its own says what is wrong with probe()
        return OWN_FORMATS[0]
    taken = {file_format for device in devices for file_format in device.formats}
    return next((file_format for file_format in OWN_FORMATS if file_format in taken), OWN_FORMATS[0])


def parsed(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m backends.contract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("backend", help="MODULE:CLASS, or the name of a known backend")
    parser.add_argument(
        "--options", type=json.loads, default={}, metavar="JSON", help="as in [backends.options]"
    )
    parser.add_argument("--device", help="default: the first usable one")
    parser.add_argument("--model", type=Path, metavar="FILE", help="default: a softmax of the suite's own")
    parser.add_argument("--format", help="of the model; default: onnx, or what the backend takes")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME:DATATYPE:SIZExSIZE", help="of the model"
    )
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS", help="for each check, default 60"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[check.__name__ for check in CHECKS],
        metavar="CHECK",
        help="this check, in this process",
    )
    return parser, parser.parse_args(arguments)


def model_for(given: argparse.Namespace, folder: Path) -> Model:
    """The model to check with; raises ValueError and OSError for what makes no sense."""
    if given.model:
        return given_model(given.model, given.format or "onnx", given.input)
    return own_model(folder, given.format or first_format(given.backend, given.options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a backend; 0 when no check failed, 2 for arguments that make no sense."""
    parser, given = parsed(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            registry.validate_options(given.backend, given.options)
            model = model_for(given, Path(folder))
        except (registry.UnknownBackend, ValueError, OSError) as error:
            parser.error(str(error))
        if given.only:
            subject = Subject(given.backend, model, given.options, given.device)
            return max(run_here(check, subject) for check in CHECKS if check.__name__ in given.only)
        outcomes = [run_apart(check, _again(given, model), given.limit) for check in CHECKS]
    left_out = outcomes.count(NOT_CHECKED)
    besides = f", {left_out} not checked (skip)" if left_out else ""
    print(f"{given.backend}: {outcomes.count(OK)} of {len(CHECKS)} checks passed{besides}")  # noqa: T201
    return FAILED if FAILED in outcomes else OK


def _again(given: argparse.Namespace, model: Model) -> list[str]:
    """The arguments for one check of this run."""
    words = [
        given.backend,
        "--options",
        json.dumps(given.options),
        "--model",
        str(model.path),
        "--format",
        model.format,
    ]
    for tensor in model.inputs:
        words += ["--input", f"{tensor.name}:{tensor.datatype}:{'x'.join(map(str, tensor.row_shape))}"]
    return words + (["--device", given.device] if given.device else [])


if __name__ == "__main__":
    sys.exit(main())
