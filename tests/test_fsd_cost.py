"""The modelled chip against what is published of the real one (Hot Chips 31, 2019)."""

from math import ceil

import pytest
from fsd_models import STORED, Model, integer_twin, light, random_weights

from firmware_shims.fsd.chip import FSD, Chip, Cycles, Product, array_cycles
from firmware_shims.fsd.cost import Demand, Report, report
from firmware_shims.fsd.demand import demands, modelled
from firmware_shims.fsd.layers import Network
from firmware_shims.fsd.placement import Tensor, placed
from firmware_shims.fsd.reading import read_program

MIB = 1 << 20
INCEPTIONS = {"inception_v1": 0.787, "inception_v2": 0.836}
PUBLISHED_UTILISATION = (0.75, 0.90)


def systolic_cycles(product: Product, chip: Chip) -> int:
    """An array through which operands and results travel: every tile waits until it has filled and drained."""
    tiles = ceil(product.m / chip.rows) * ceil(product.n / chip.columns) * product.groups
    return tiles * (product.k + 2 * chip.rows + chip.columns - 2) + chip.start_cycles


def one_product(m: int, n: int, k: int, *, outside: bool = False, weight_bytes: int | None = None) -> Demand:
    source, result = Tensor("x", m * k, outside), Tensor("y", m * n, outside)
    held = n * k if weight_bytes is None else weight_bytes
    return Demand("layer", "MatMul", Product(m, n, k, 1, m * n * k), False, (source,), result, held)


@pytest.fixture(scope="module", params=INCEPTIONS)
def inception(request: pytest.FixtureRequest) -> tuple[str, Network]:
    return request.param, read_program(integer_twin(light(request.param), 960, 1280))


def utilised(network: Network, law: Cycles) -> float:
    return report(demands(network, 1), cycles=law).array_utilisation


def meets_the_published_utilisation(share: float) -> bool:
    return PUBLISHED_UTILISATION[0] <= share <= PUBLISHED_UTILISATION[1]


def test_an_npu_peaks_at_the_published_throughput() -> None:
    assert FSD.peak_ops_per_s == pytest.approx(36.864e12, rel=1e-3)
    busy = report([one_product(96 * 300, 96 * 2, 9 * 96)])
    assert 2 * busy.macs / busy.seconds == pytest.approx(36.864e12, rel=1e-3)


def test_inception_uses_as_much_of_the_array_as_was_published(inception: tuple[str, Network]) -> None:
    name, network = inception
    share = utilised(network, array_cycles)
    assert meets_the_published_utilisation(share)
    assert share == pytest.approx(INCEPTIONS[name], abs=1e-3)


def test_pools_and_sums_of_their_own_leave_inception_in_the_published_range(
    inception: tuple[str, Network],
) -> None:
    whole = modelled(inception[1])
    assert meets_the_published_utilisation(whole.utilisation)
    assert whole.utilisation < whole.array_utilisation


def test_a_systolic_array_could_not_have_reached_it(inception: tuple[str, Network]) -> None:
    share = utilised(inception[1], systolic_cycles)
    assert not meets_the_published_utilisation(share)
    assert 0.48 <= share <= 0.54


def test_at_its_peak_an_npu_takes_the_published_power() -> None:
    # as many results leave the array as can: the fit is to the most that it can take
    busy = report([one_product(96 * 1800, 96, 96)])
    watts = busy.joules / busy.seconds
    assert watts == pytest.approx(7.5, rel=0.05)
    assert 2 * busy.macs / busy.seconds / watts == pytest.approx(4.9e12, rel=0.05)


def test_two_npus_would_take_2106_frames_a_second_of_35_gop() -> None:
    assert int(2 * FSD.peak_ops_per_s / 35e9) == 2106


def test_a_depthwise_layer_uses_one_column_of_the_array_and_waits_for_its_results() -> None:
    model = Model()
    frame = model.input("x", (256, 56, 56), **STORED)
    weights = model.constant(random_weights((256, 1, 3, 3)), 0.01)
    result = model.apply("Conv", [frame, weights], **STORED, group=256, pads=[1, 1, 1, 1])
    layer = modelled(read_program(model.program(result))).layers[0]
    product = demands(read_program(model.program(result)), 1)[0].product
    assert product is not None
    assert product.n / FSD.columns == pytest.approx(0.0104, abs=1e-4)
    assert layer.utilisation == pytest.approx(9 / 96**2, rel=0.05)


def test_a_single_vector_by_a_matrix_uses_one_row_of_the_array() -> None:
    layer = report([one_product(1, 960, 2048)]).layers[0]
    assert layer.utilisation == pytest.approx(1 / 96, rel=0.01)


def test_resnet_50_keeps_its_weights_in_sram_and_reads_only_the_frame() -> None:
    whole = modelled(read_program(integer_twin(light("resnet50"), 224, 224)))
    assert whole.macs == pytest.approx(4.09e9, rel=0.01)
    assert whole.resident_bytes == pytest.approx(25.5e6, rel=0.01)
    assert whole.dram_bytes == 3 * 224 * 224 + 1000
    assert whole.array_utilisation == pytest.approx(0.577, abs=1e-3)
    assert whole.seconds == pytest.approx(0.385e-3, rel=0.01)


def test_weights_beyond_the_sram_are_read_in_every_run() -> None:
    fitting, beyond = (report([one_product(96, 96, 96, weight_bytes=size * MIB)]) for size in (16, 48))
    assert fitting.dram_bytes == 0
    assert fitting.load_seconds == pytest.approx(16 * MIB / 68.26e9)
    activations = 2 * 96 * 96
    assert beyond.dram_bytes == 16 * MIB + activations
    assert beyond.seconds == pytest.approx(beyond.dram_bytes / 68.26e9)
    assert beyond.joules > fitting.joules + beyond.dram_bytes * 40e-12


def test_frames_that_do_not_fit_the_sram_go_through_dram() -> None:
    small, large = Tensor("small", 10 * MIB, False), Tensor("large", 30 * MIB, False)
    steps = [((small,), large), ((large,), Tensor("result", 1 * MIB, False))]
    places = placed(steps, [2 * MIB, 0], 32 * MIB)
    assert places.dram_bytes == (30 * MIB, 30 * MIB)
    assert places.resident_bytes == 2 * MIB


def test_what_the_host_gives_and_takes_crosses_dram_once() -> None:
    cost = report([one_product(960, 96, 96, outside=True)])
    assert cost.dram_bytes == 2 * 960 * 96


def test_twice_the_rows_never_cost_more_than_two_runs(inception: tuple[str, Network]) -> None:
    one, eight = modelled(inception[1]), modelled(inception[1], 8)
    assert eight.macs == 8 * one.macs
    assert eight.seconds <= 8 * one.seconds
    assert eight.joules <= 8 * one.joules * 1.001


def test_a_pool_behind_a_convolution_takes_no_time_and_one_of_its_own_does() -> None:
    model = Model()
    frame = model.input("x", (8, 64, 64), **STORED)
    wide = model.apply("Conv", [frame, model.constant(random_weights((8, 8, 3, 3)), 0.01)], **STORED)
    first = model.apply("MaxPool", [wide], **STORED, kernel_shape=[2, 2], strides=[2, 2])
    second = model.apply("MaxPool", [first], **STORED, kernel_shape=[2, 2], strides=[2, 2])
    cycles = [layer.cycles for layer in modelled(read_program(model.program(second))).layers]
    assert cycles[1] == 0
    assert cycles[2] > FSD.start_cycles


def test_the_parts_of_a_report_add_up() -> None:
    whole: Report = modelled(read_program(integer_twin(light("squeezenet"), 64, 64)), 3)
    assert whole.joules == pytest.approx(whole.times * sum(layer.joules for layer in whole.layers))
    assert whole.cycles == whole.times * sum(layer.cycles for layer in whole.layers)
    assert 0 < whole.utilisation <= whole.array_utilisation <= 1
