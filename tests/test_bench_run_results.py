"""results.json: what is written is what is read, and what is not ours is refused in one line."""

import json
from pathlib import Path

import bench_results
import jsonschema
import pytest

from benchmarks.throughput import results, schema
from benchmarks.throughput.results import ResultsError

PUBLISHED = Path(__file__).parent.parent / "docs" / "benchmarks" / schema.FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    workshop = bench_results.Workshop()
    rows = [
        workshop.row(bench_results.Machine(marks=("busy machine: …",))),
        workshop.row(bench_results.Machine(source="none"), use="null"),
        workshop.row(bench_results.Machine(fails="worker died: …"), use="fault"),
    ]
    return results.write(tmp_path, bench_results.results(*rows))


def changed(file: Path, **fields: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_what_is_written_is_read_again_from_the_file_and_from_its_folder(file: Path) -> None:
    found = results.read(file)
    assert results.read(file.parent) == found
    assert [row.backend.use for row in results.measured(found)] == ["cpu", "null"]
    assert [path.name for path in file.parent.iterdir()] == [results.FILE], "no half a file stays behind"


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert PUBLISHED.read_text() == schema.text(), "run `make docs`"


def test_the_published_schema_takes_what_is_written_and_refuses_what_reading_refuses(file: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(PUBLISHED.read_text()))
    written = json.loads(file.read_text())
    validator.validate(written)
    for spoilt in (
        {**written, "schema": 2},
        {**written, "note": "hello"},
        {**written, "rows": [{**written["rows"][0], "quick": "yes"}]},
        {key: value for key, value in written.items() if key != "partial"},
    ):
        file.write_text(json.dumps(spoilt))
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(spoilt)
        with pytest.raises(ResultsError):
            results.read(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no results file"),
        (b"\xff\xfe", "is no results file"),
        (b"[" * 10_000, "is no results file"),
        (b'{"benchmarks": []}', "is no results file"),
    ],
)
def test_a_file_of_somebody_else_is_named_as_such(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(content)
    with pytest.raises(ResultsError, match=says) as caught:
        results.read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_a_newer_parkwatt_says_which_one_reads_it(file: Path) -> None:
    changed(file, schema=results.SCHEMA + 1)
    with pytest.raises(ResultsError, match="has schema 2, this parkwatt reads 1: take the parkwatt"):
        results.read(file)


def test_a_file_that_was_edited_names_the_place(file: Path) -> None:
    written = json.loads(file.read_text())
    written["rows"][0]["model"]["sha256"] = "abc"
    file.write_text(json.dumps(written))
    with pytest.raises(ResultsError, match=r"damaged, or was edited: .*rows\[0\]\.model\.sha256"):
        results.read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot be read: No such file"):
        results.read(tmp_path)


def test_a_write_that_fails_leaves_the_old_results(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        results.write(file.parent, bench_results.results())
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [results.FILE]


def test_rows_of_two_files_are_the_same_by_model_backend_device_scenario_and_batch() -> None:
    workshop = bench_results.Workshop()
    keys = {
        workshop.row(bench_results.Machine(), model=model, use=use, scenario=scenario, batch=batch).key
        for model in ("a", "b")
        for use in ("cpu", "null")
        for scenario in ("single", "offline")
        for batch in (1, 4)
    }
    assert len(keys) == 16
