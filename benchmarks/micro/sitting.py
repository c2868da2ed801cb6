"""One sitting of the micro-benchmarks: run them, compare with the newest baseline, become the next one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
COLUMNS: Final = "median,iqr,min,rounds"
FILES: Final = "[0-9][0-9][0-9][0-9]_*.json"


@dataclass(frozen=True, slots=True)
class Sitting:
    """`storage` keeps the baselines. `fail_above_pct`: a median that has grown by more fails, None: none does.

    `only` is an expression of pytest's `-k`; `name` names what is kept, empty for commit and time. A `quick` one is
    a look and is not kept; nor is a part of them, which would be no baseline for the rest, unless it has a name.
    """

    storage: Path
    fail_above_pct: int | None = None
    only: str = ""
    name: str = ""
    quick: bool = False

    def run(self) -> int:
        """0 when all ran and none has become slower than it may; only then it is kept as a baseline."""
        import pytest  # noqa: PLC0415 - the other commands run without it
        from pytest_benchmark.session import PerformanceRegression  # noqa: PLC0415

        before = self.baselines()
        if not before:
            becomes = "this one becomes it" if self._is_kept else "neither a quick one nor a part becomes it"
            print(f"no baseline in {self.storage} yet: {becomes}", flush=True)
        try:
            code = int(pytest.main(self._arguments(compare=bool(before))))
        except PerformanceRegression:  # it has told which
            code = 1
        if code:
            for file in self.baselines() - before:
                file.unlink()
        return code

    def baselines(self) -> set[Path]:
        """What has been kept so far by this system and Python."""
        from pytest_benchmark.utils import get_machine_id  # noqa: PLC0415 - as above

        return set((self.storage / get_machine_id()).glob(FILES))

    @property
    def _is_kept(self) -> bool:
        return not self.quick and (bool(self.name) or not self.only)

    def _arguments(self, compare: bool) -> list[str]:
        arguments = [
            str(FOLDER),
            "-c",
            str(FOLDER / "pytest.ini"),
            f"--benchmark-storage=file://{self.storage}",
        ]
        arguments += [f"--benchmark-columns={COLUMNS}", "--benchmark-sort=fullname"]
        if compare:
            arguments.append("--benchmark-compare")
            if self.fail_above_pct is not None:
                arguments.append(f"--benchmark-compare-fail=median:{self.fail_above_pct}%")
        if self.only:
            arguments += ["-k", self.only]
        if self.quick:
            arguments.append("--benchmark-max-time=0.05")
        if self._is_kept:
            arguments.append(f"--benchmark-save={self.name}" if self.name else "--benchmark-autosave")
        return arguments
