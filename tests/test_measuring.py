"""What a load learns from its first runs, whichever runtime makes them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from backends.kernel import INFERENCE_FAILED, MODEL_UNSUPPORTED, OUT_OF_MEMORY, Cost, KernelError, Tensor
from backends.measuring import LARGEST_MEASURED_BATCH, SLOW_ROW_S, FirstRow, the_model_is_to_blame, zeros
from backends.outputs import described_outputs, fill_output

np = pytest.importorskip("numpy")
QUICK_S = 1e-5


@dataclass
class Runtime:
    """Runs that take `row_s` a row, the very first one `cold_s` more; `shape` is the output's for so many rows."""

    shape: Callable[[int], tuple[int, ...]]
    row_s: float = QUICK_S
    cold_s: float = 0.0
    most_rows: int = 1000
    ran: list[int] = field(default_factory=list)

    def __call__(self, rows: int) -> tuple[float, list[Any]]:
        if rows > self.most_rows:
            raise KernelError(INFERENCE_FAILED, f"{rows} rows do not fit")
        cold_s = 0.0 if self.ran else self.cold_s
        self.ran.append(rows)
        return cold_s + rows * self.row_s, [np.zeros(self.shape(rows), np.float32)]


def rows_first(rows: int) -> tuple[int, ...]:
    return rows, 5


def test_the_first_row_is_cold_and_run_again_unless_it_is_slow_or_its_cost_is_known() -> None:
    assert FirstRow(Runtime(rows_first, cold_s=0.1), None, SLOW_ROW_S).seconds == pytest.approx(QUICK_S)
    assert FirstRow(Runtime(rows_first, cold_s=0.6), None, SLOW_ROW_S).seconds == pytest.approx(0.6, rel=1e-3)
    assert FirstRow(Runtime(rows_first, cold_s=0.1), Cost(), SLOW_ROW_S).seconds == pytest.approx(
        0.1, rel=1e-3
    )


def test_quick_rows_are_measured_up_to_the_largest_batch() -> None:
    run_s = FirstRow(Runtime(rows_first), None, SLOW_ROW_S).seconds_by_batch(rows_are_free=True)
    assert list(run_s) == [1, 2, 4, 8, 16, 32, 64]
    assert run_s[LARGEST_MEASURED_BATCH] == pytest.approx(LARGEST_MEASURED_BATCH * QUICK_S)


@pytest.mark.parametrize(
    ("runtime", "rows_are_free"),
    [
        pytest.param(Runtime(rows_first), False, id="the file fixes the rows"),
        pytest.param(Runtime(rows_first, row_s=SLOW_ROW_S), True, id="a row is slow"),
        pytest.param(Runtime(rows_first, most_rows=1), True, id="two rows do not run"),
        pytest.param(Runtime(lambda _: (1, 5)), True, id="two rows come out as one"),
        pytest.param(Runtime(lambda _: (2, 5)), True, id="an output of two that are no rows"),
        pytest.param(Runtime(lambda _: ()), True, id="a single number"),
    ],
)
def test_rows_that_cannot_share_a_run_are_measured_alone(runtime: Runtime, rows_are_free: bool) -> None:
    run_s = FirstRow(runtime, None, SLOW_ROW_S).seconds_by_batch(rows_are_free)
    assert run_s == {1: pytest.approx(runtime.row_s)}


def test_zeros_have_rows_in_front_but_for_what_is_shared() -> None:
    feed = zeros((Tensor("x", "FP16", (3,)), Tensor("table", "INT8", (7, 2), shared=True)), rows=4)
    assert {name: (array.shape, array.dtype.name) for name, array in feed.items()} == {
        "x": ((4, 3), "float16"),
        "table": ((7, 2), "int8"),
    }


def test_an_output_without_rows_belongs_as_a_whole_to_the_row_of_its_run() -> None:
    (whole, rowed) = described_outputs(
        ("whole", "rowed"), ("FP32", "INT64"), [np.zeros((6, 4)), np.zeros((1, 4))]
    )
    assert (whole, rowed) == (Tensor("whole", "FP32", (6, 4)), Tensor("rowed", "INT64", (4,)))
    given = np.zeros((1, 6, 4))
    fill_output(given, "whole", np.ones((6, 4)))
    assert given.all()


def test_an_output_of_another_shape_than_at_the_load_fails_the_run() -> None:
    with pytest.raises(
        KernelError, match=r"output 'boxes' came with shape \[2, 4\], expected \[1, 6, 4\]"
    ) as told:
        fill_output(np.zeros((1, 6, 4)), "boxes", np.ones((2, 4)))
    assert told.value.code == INFERENCE_FAILED


def test_an_output_that_zeros_leave_empty_is_not_supported() -> None:
    with pytest.raises(KernelError, match="'boxes' is empty") as told:
        described_outputs(("boxes",), ("FP32",), [np.zeros((0, 4))])
    assert told.value.code == MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("code", "told"), [(INFERENCE_FAILED, MODEL_UNSUPPORTED), (OUT_OF_MEMORY, OUT_OF_MEMORY)]
)
def test_a_model_that_fails_in_its_first_runs_does_not_fit(code: int, told: int) -> None:
    with pytest.raises(KernelError, match="no such shape") as error, the_model_is_to_blame():
        raise KernelError(code, "no such shape")
    assert error.value.code == told
