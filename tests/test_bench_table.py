"""Results as Markdown, for a page of their own and for the README."""

import re
from pathlib import Path

import pytest
from bench_command import called
from bench_results import MODEL_METER, Machine, Workshop, results
from msgspec import structs

from benchmarks.commands.table import BEGIN, END
from benchmarks.throughput import markdown_table
from benchmarks.throughput.agreement import disagreements
from benchmarks.throughput.results import Interval, Loadgen, Results, write

MEASURED = Machine()
MODELLED = Machine(source="model", meter=MODEL_METER)
WITHOUT = Machine(source="none")


def tables(text: str) -> list[dict[str, str]]:
    """The rows of the only table, by the titles of their columns."""
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    titles, _, *rows = cells
    assert all(len(row) == len(titles) for row in rows)
    return [dict(zip(titles, row, strict=True)) for row in rows]


def of(*machines: Machine, **more: bool) -> Results:
    workshop = Workshop()
    return results(*(workshop.row(each, f"m{number}") for number, each in enumerate(machines)), **more)


def test_measured_and_modelled_joules_never_stand_in_one_column() -> None:
    measured, modelled = tables(markdown_table.readme(of(MEASURED, MODELLED), "results.json"))
    assert re.match(r"\d", measured["inferences/J, measured"])
    assert measured["inferences/J, model"] == "-"
    assert modelled["inferences/J, measured"] == "-"
    assert re.match(r"\d", modelled["inferences/J, model"])
    assert modelled["meter"] == MODEL_METER


def test_without_a_meter_it_says_so_and_prints_no_number() -> None:
    [row] = tables(markdown_table.page(of(WITHOUT)))
    assert row["inferences/J, measured"] == row["J/inference, measured"] == "no meter"
    assert "inferences/J, model" not in row


def test_a_device_that_counts_for_itself_is_named_where_the_machine_has_no_meter() -> None:
    counted = of(Machine(meter="chip dev0"))
    alone = structs.replace(counted, provenance=structs.replace(counted.provenance, meter=None))
    assert "no meter of the machine; counted by the device itself: chip dev0." in markdown_table.page(alone)


def test_of_a_workers_traceback_the_page_has_the_last_line() -> None:
    said = 'it printed: Traceback (most recent call last):\n  File "chip.py", line 1, in run\nValueError: no such layer'
    [row] = of(MEASURED).rows
    failed = structs.replace(row, figures=None, rounds=(), failed=f"worker died: {said}")
    page = markdown_table.page(structs.replace(of(MEASURED), rows=(failed,)))
    assert "failed: worker died: it printed: ValueError: no such layer\n" in page


def test_kinds_of_marks_leave_out_numbers_and_keep_names() -> None:
    few = (f"p99 of {count} latencies: too few for an interval" for count in (109, 1_320))
    readme = markdown_table.readme(of(*(Machine(marks=(mark,)) for mark in few)), "results.json")
    assert "- 2 of 2 rows: p99 of ... latencies: too few for an interval" in readme


def test_what_the_load_generator_saw_stands_beside_ours_and_a_difference_is_marked() -> None:
    [alike, apart] = of(MEASURED, MEASURED).rows
    saw = Loadgen(
        "6.0.17", valid=True, queries=64, throughput_per_s=250, throughput_ratio=1.01, p50_ratio=0.99
    )
    off = structs.replace(saw, throughput_ratio=1.2, why_invalid=("min_duration was not met",))
    found = results(structs.replace(alike, loadgen=saw), structs.replace(apart, loadgen=off))
    first, second = tables(markdown_table.page(found))
    assert first["throughput, p50, of loadgen's"] == "1.01, 0.990"
    assert second["throughput, p50, of loadgen's"] == "1.20, 0.990"
    assert disagreements(saw) == []
    assert disagreements(off) == [
        "loadgen: its test is not valid: min_duration was not met",
        "loadgen: our throughput is 1.20 of its own, 5% apart is the limit",
    ]
    assert disagreements(Loadgen(failed="none sends evenly")) == ["loadgen: no test: none sends evenly"]


def test_figures_stand_with_their_intervals() -> None:
    [row] = tables(markdown_table.page(of(MEASURED)))
    for title in (
        "inferences/s",
        "p99 ms",
        "CPU ms/inference",
        "inferences/J, measured",
        "throughput, of bare",
    ):
        value, low, high = (float(each.replace(",", "")) for each in re.findall(r"[\d.,]+\d", row[title]))
        assert low <= value <= high


def test_the_machine_is_named_and_what_is_no_result_is_told() -> None:
    text = markdown_table.readme(of(MEASURED, quick=True, partial=True), "out/results.json")
    assert "Intel Xeon Platinum 8481C, 2 cores" in text
    assert "quick run: a look, not a result" in text
    assert "Partial" in text
    assert "python -m benchmarks table out/results.json" in text


def test_the_page_has_every_mark_and_the_readme_a_line_for_each_kind() -> None:
    found = of(*(Machine(marks=(f"busy machine: others took {share}%, limit 5%",)) for share in (30, 41)))
    page, readme = markdown_table.page(found), markdown_table.readme(found, "results.json")
    assert "- m1, cpu, single: busy machine: others took 41%, limit 5%" in page
    assert "- 2 of 2 rows: busy machine: others took ...%, limit ...%" in readme


def test_a_row_that_failed_is_named_below_and_breaks_no_table() -> None:
    text = markdown_table.page(of(MEASURED, Machine(fails="worker | ended\nby <signal> 9")))
    assert len(tables(text)) == 1
    assert "- m1, cpu, single failed: worker \\| ended by &lt;signal> 9" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0000123, "0.0000123"),
        (0.5, "0.500"),
        (99.94, "99.9"),
        (999.6, "1,000"),
        (12345.6, "12,346"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert markdown_table.number(value) == text


def test_a_figure_without_bounds_stands_alone() -> None:
    assert markdown_table.shown(Interval(2.0)) == "2.00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, of(MEASURED))
    return tmp_path


def test_one_command_puts_the_table_into_the_readme_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = folder / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert called(capsys, "table", folder, "--into", readme).code == 0
    first = readme.read_text()
    assert first.startswith(f"before\n{BEGIN}\n\n")
    assert first.endswith(f"\n\n{END}\nafter\n")
    assert "old" not in first
    assert called(capsys, "table", folder, "--into", readme).code == 0
    assert readme.read_text() == first


@pytest.mark.parametrize(
    "text", ["no markers\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"]
)
def test_a_readme_without_its_two_markers_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    readme = folder / "README.md"
    readme.write_text(text)
    code, _, err = called(capsys, "table", folder, "--into", readme)
    assert code == 2
    assert "one of each" in err
    assert err.count("\n") == 1
    assert readme.read_text() == text


def test_the_table_is_printed_where_no_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "| m0, float32 |" in called(capsys, "table", folder).out
    assert "load ms" in called(capsys, "table", folder, "--full").out
