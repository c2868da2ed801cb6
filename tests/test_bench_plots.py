"""The pictures of a results file: which there are, what they hold, and that nothing lies upon anything."""

import itertools
from dataclasses import replace as dataclass_replace
from pathlib import Path

import pytest
from bench_command import called
from bench_results import MODEL_METER, Machine, Workshop, results
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from backends.explanation import ExplainedLayer, Explanation
from benchmarks.throughput import (
    figures,
    histogram,
    plot_bars,
    plot_batches,
    plot_latency,
    plot_roofline,
    plot_style,
    plots,
)
from benchmarks.throughput.plot_meters import kinds
from benchmarks.throughput.plot_style import LABEL_GAP, LOOKS, apart, styled
from benchmarks.throughput.results import Results, ScenarioName, write
from firmware_shims.fsd.chip import FSD

MODELLED = Machine(latency_ms=6, source="model", meter=MODEL_METER)
PNG = b"\x89PNG"


LOADS: tuple[tuple[ScenarioName, int], ...] = (("single", 1), ("offline", 1), ("offline", 4), ("offline", 16))


def whole() -> Results:
    """Two models, each on three backends, alone and in batches."""
    workshop = Workshop()
    machines = {"cpu": Machine(), "tflite": Machine(latency_ms=4.1), "emulated": MODELLED}
    rows = [
        workshop.row(machine, model, use, scenario, batch)
        for model in ("file-types", "resnet50")
        for use, machine in machines.items()
        for scenario, batch in LOADS
    ]
    return results(*rows)


def test_every_picture_that_the_file_has_rows_for_is_drawn_twice(tmp_path: Path) -> None:
    files = plots.draw(whole(), tmp_path)
    names = [
        "throughput-per-watt",
        "throughput-per-watt-model",
        "throughput-per-cpu-second",
        "latency",
        "batches",
        "batches-model",
    ]
    assert [file.name for file in files] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for file in files:
        assert file.read_bytes().startswith(PNG if file.suffix == ".png" else b"<?xml")


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        plots.draw(whole(), folder)
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name


def test_only_the_joules_of_one_meter_or_one_model_stand_in_a_picture() -> None:
    other_model = dataclass_replace(MODELLED, meter="fsd emulator")
    rows = (*whole().rows, Workshop(9).row(other_model, use="other"))
    found = results(*rows)
    wanted = {
        "throughput-per-watt": {"cpu", "tflite"},
        "throughput-per-watt-model": {"emulated"},
        "throughput-per-watt-model-2": {"other"},
        "throughput-per-cpu-second": {"cpu", "tflite", "emulated", "other"},
    }
    with styled():
        for bars in plot_bars.pictures(found):
            page = plot_bars.drawn(bars, found)
            assert page is not None
            labels = {label.get_text() for axes in page.axes for label in axes.get_yticklabels()}
            assert {label.split(",")[0] for label in labels} == wanted.pop(bars.name)
            assert ("MODEL" in bars.title) is ("model" in bars.name)
    assert not wanted


def test_power_over_the_batch_is_of_one_meter_or_one_model_too() -> None:
    with styled():
        pages = [plot_batches.drawn(joules, whole()) for joules in kinds(whole())]
    lines = [[line.get_text() for line in page.axes[1].texts] for page in pages if page is not None]
    assert lines == [["cpu", "tflite"], ["emulated"]]
    assert [page.axes[1].get_ylabel() for page in pages if page is not None] == ["W", "W by a MODEL"]


def test_without_a_meter_there_is_no_picture_of_watts_and_the_batches_say_so(tmp_path: Path) -> None:
    rows = [Workshop().row(Machine(source="none"), scenario="offline", batch=batch) for batch in (1, 8)]
    alone = results(*rows)
    names = {file.stem for file in plots.draw(alone, tmp_path)}
    assert names == {"throughput-per-cpu-second", "batches"}
    with styled():
        page = plot_batches.drawn(None, alone)
    assert page is not None
    assert [text.get_text() for text in page.axes[1].texts] == ["no meter"]


def test_a_bar_begins_at_0_and_ends_at_its_figure() -> None:
    with styled():
        page = plot_bars.drawn(next(plot_bars.pictures(whole())), whole())
    assert page is not None
    for axes in page.axes:
        assert axes.get_xlim()[0] == 0
        bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert bars
        assert all(bar.get_x() == 0 for bar in bars)


def from_microseconds_to_tenths_of_a_second() -> Results:
    workshop = Workshop()
    machines = {
        "null": Machine(latency_ms=0.004),
        "cpu": Machine(latency_ms=8),
        "fsd": Machine(latency_ms=90),
    }
    return results(
        *(workshop.row(machine, model, use) for model in ("a", "b") for use, machine in machines.items())
    )


def test_the_backend_that_computes_nothing_has_no_throughput_per_watt() -> None:
    """Its bar would make those of all others too short to be seen."""
    found = results(*(Workshop().row(Machine(), use=use) for use in ("cpu", "null")))
    with styled():
        page = plot_bars.drawn(next(plot_bars.pictures(found)), found)
    assert page is not None
    assert [label.get_text() for axes in page.axes for label in axes.get_yticklabels()] == ["cpu, single"]


def pages() -> list[Figure]:
    """One of each kind."""
    drawn = (
        plot_bars.drawn(next(plot_bars.pictures(whole())), whole()),
        plot_latency.drawn(whole()),
        plot_latency.drawn(from_microseconds_to_tenths_of_a_second()),
        plot_batches.drawn(next(kinds(whole())), whole()),
    )
    return [
        page for page in (*drawn, plot_roofline.drawn("resnet50", network(), whole())) if page is not None
    ]


def texts(page: Figure) -> list[Text]:
    """What is seen: ticks beyond the end of their axis are there and not drawn."""
    page.draw_without_rendering()
    beyond = {
        id(tick.label1)
        for axes in page.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    found = [artist for artist in page.findobj(Text) if isinstance(artist, Text) and id(artist) not in beyond]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def test_no_text_lies_upon_another() -> None:
    """As far as boxes tell: titles, labels and numbers of every picture."""
    with styled():
        for page in pages():
            upon = [
                (one.get_text(), other.get_text())
                for one, other in itertools.combinations(texts(page), 2)
                if one.get_window_extent()
                .shrunk(0.9, 0.9)
                .overlaps(other.get_window_extent().shrunk(0.9, 0.9))
            ]
            assert not upon


def test_no_text_is_cut_off_at_the_edge_of_the_page() -> None:
    long = "nvml " + ", ".join(f"GPU-{number:08x}-1111-2222-3333-444455556666" for number in range(4))
    rows = [Workshop().row(Machine(meter=long), scenario="offline", batch=batch) for batch in (1, 8)]
    found = results(*rows, cpu_model="A processor of which the name is as long as those of servers are " * 2)
    drawn = (
        plot_bars.drawn(next(plot_bars.pictures(found)), found),
        plot_batches.drawn(next(kinds(found)), found),
    )
    with styled():
        for page in (*drawn, *pages()):
            assert page is not None
            for text in texts(page):
                box = text.get_window_extent()
                assert box.x0 >= 0, text.get_text()
                assert box.x1 <= page.bbox.x1, text.get_text()


def test_text_is_large_enough_to_be_read_at_the_width_of_a_page() -> None:
    with styled():
        for page in pages():
            assert page.get_size_inches()[0] == plot_style.PAGE_INCHES
            assert min(float(text.get_fontsize()) for text in texts(page)) >= plot_style.SMALL_POINTS


def test_labels_keep_their_distance_and_stay_on_the_page() -> None:
    for places in ([0.1, 0.1, 0.1], [0.95, 0.97, 0.99], [0.0, 0.5, 1.0], []):
        moved = apart(places)
        assert all(high - low >= LABEL_GAP - 1e-9 for low, high in itertools.pairwise(moved))
        assert all(0 <= place <= 1 for place in moved)


def test_backends_differ_without_colour() -> None:
    assert len({look.hatch for look in LOOKS}) == len(LOOKS)
    assert len({look.marker for look in LOOKS}) == len(LOOKS)
    assert len({look.colour for look in LOOKS}) == len(LOOKS)


def test_latency_ends_where_percentiles_are_chance() -> None:
    rounds = Workshop().row(Machine(rounds=5, queries=100)).rounds
    together = histogram.merged(figures.ours(each).latency for each in rounds)
    _, ys = plot_latency._beyond(together)
    assert min(ys) >= plot_latency.LEAST_BEYOND / 500


def layer(operator: str, macs: int, seconds: float, dram_bytes: int, utilisation: float) -> ExplainedLayer:
    return ExplainedLayer(
        f"{operator}-{macs}", operator, "npu", "", macs, utilisation, seconds, 1e-6, 1000, dram_bytes
    )


def network() -> Explanation:
    layers = [
        layer("Conv", 30_000_000, 1e-5, 300_000, 0.3),
        layer("Conv", 1000, 1e-6, 1000, 0.001),
        layer("MatMul", 18_000_000, 2e-6, 0, 0.6),
        ExplainedLayer("Add", "Add", "npu", "", 0, 0.0, 1e-6, 1e-7, 0, 5000),
        ExplainedLayer("Softmax", "Softmax", "host", "no such unit", 10),
    ]
    macs = sum(each.macs for each in layers[:4])
    return Explanation("npu0", "model", layers, 1, macs + 10, macs, 0.4, 1.4e-5, 1e-4, 4000, 306_000, 0, [])


def test_no_layer_lies_above_the_roof_of_the_array() -> None:
    points = plot_roofline.points(network())
    assert [point.kind for point in points] == [
        "convolution",
        "convolution that uses below 2 % of the array",
        "product of matrices",
    ]
    assert all(point.ops_per_s <= FSD.peak_ops_per_s for point in points)
    assert points[2].ops_per_byte is None
    assert sum(point.share for point in points) == pytest.approx(13 / 14)


def test_the_roofline_says_that_it_is_a_model() -> None:
    with styled():
        page = plot_roofline.drawn("resnet50", network(), whole())
    assert page is not None
    assert "MODEL of the published chip, not measured" in page.legends[0].get_title().get_text()


def test_a_network_that_cannot_be_explained_here_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    told: list[str] = []
    found = results(Workshop().row(MODELLED, "no-such-model", "fsd"))
    files = plots.draw(found, tmp_path, told.append)
    assert any(file.stem == "latency" for file in files)
    assert told == ["roofline of no-such-model: not drawn: the catalogue has no model 'no-such-model'"]


def test_one_command_draws_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, whole())
    code, out, _ = called(capsys, "plot", tmp_path)
    assert code == 0
    assert str(tmp_path / "latency.png") in out.splitlines()
    assert (tmp_path / "latency.svg").exists()


def test_results_without_figures_have_no_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, results(Workshop().row(Machine(fails="no"))))
    code, _, err = called(capsys, "plot", tmp_path)
    assert code == 1
    assert "nothing to draw" in err


def test_too_few_latencies_for_a_median_make_no_empty_panel() -> None:
    few, enough = Machine(rounds=5, queries=3), Machine()
    workshop = Workshop()
    page = plot_latency.drawn(results(workshop.row(few, "slow"), workshop.row(enough, "quick")))
    assert page is not None
    assert [axes.get_title(loc="left") for axes in page.axes if axes.get_visible()] == ["quick"]
    assert plot_latency.drawn(results(workshop.row(few, "slow"))) is None
