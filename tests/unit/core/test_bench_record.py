import dataclasses
import json

import pytest

from conviction.core.bench_record import BenchRecord, Ceiling, Rate, TrainingSpeed

STEADY = Rate(100.0, 98.0, 102.0, 9)
TRAINING = TrainingSpeed(
    recipe="mine",
    input=(3, 32, 32),
    batch_size=50,
    precision="bfloat16",
    num_parameters=7,
    step_flop=6_000,
    step_images_per_s=Rate(200.0, 199.0, 201.0, 5),
    loop_images_per_s=Rate(150.0, 149.0, 151.0, 5),
    ceiling_operation="convolution, NCHW",
    ceiling_flops=30_000.0,
    matrix_flops=20_000.0,
)
RECORD = BenchRecord(
    environment={"cores": 2},
    device_name="a processor",
    ceilings=(Ceiling("matrix product", "bfloat16", "", "8×8", STEADY),),
    memory_bytes_per_s=STEADY,
    training=TRAINING,
    load_average=0.1,
    seconds=20.0,
)


def test_a_rate_by_hand() -> None:
    # 12 pieces in 1, 2, 3, 4 and 6 seconds: 12, 6, 4, 3 and 2 a second.
    assert Rate.of(12, [4.0, 1.0, 6.0, 2.0, 3.0]) == Rate(4.0, 3.0, 6.0, 5)
    assert Rate.of(12, [4.0, 1.0, 6.0, 2.0, 3.0]).spread == pytest.approx(0.75)


def test_a_rate_of_one_repetition() -> None:
    assert Rate.of(6, [3.0]) == Rate(2.0, 2.0, 2.0, 1)


def test_the_share_by_hand() -> None:
    # 200 images a second are 4 steps of 50, each of 6,000 operations: 24,000 of 30,000, and of 20,000.
    assert TRAINING.step_flops == pytest.approx(24_000)
    assert TRAINING.share_of_ceiling == pytest.approx(0.8)
    assert TRAINING.share_of_matrix_product == pytest.approx(1.2)


def test_a_quiet_machine_gets_no_warning() -> None:
    assert RECORD.warnings() == ()
    assert dataclasses.replace(RECORD, load_average=None).warnings() == ()


@pytest.mark.parametrize(("load", "cores", "is_busy"), [(0.59, 2, False), (0.61, 2, True), (0.61, 16, False)])
def test_a_loaded_machine_is_warned_of(load: float, cores: int, is_busy: bool) -> None:
    record = dataclasses.replace(RECORD, load_average=load, environment={"cores": cores})
    assert bool(record.warnings()) == is_busy
    if is_busy:
        assert "0.6 programs at work on 2 cores" in record.warnings()[0]


def test_scattered_repetitions_are_named() -> None:
    wide = Rate(100.0, 94.0, 105.0, 9)
    ceiling = Ceiling("convolution", "float32", "NCHW", "8", wide)
    record = dataclasses.replace(RECORD, ceilings=(*RECORD.ceilings, ceiling))
    (warning,) = record.warnings()
    assert "in convolution in float32, NCHW (11 %). " in warning
    training = dataclasses.replace(TRAINING, loop_images_per_s=wide)
    (warning,) = dataclasses.replace(RECORD, training=training).warnings()
    assert "in whole loop (11 %). " in warning


@pytest.mark.parametrize(("ceiling_flops", "is_warned"), [(24_000.0, False), (23_999.0, True)])
def test_a_share_above_one_is_no_share(ceiling_flops: float, is_warned: bool) -> None:
    training = dataclasses.replace(TRAINING, ceiling_flops=ceiling_flops)
    assert ["share means nothing" in one for one in dataclasses.replace(RECORD, training=training).warnings()] == [
        True
    ] * is_warned


def test_json_has_what_follows_from_the_figures() -> None:
    found = json.loads(json.dumps(RECORD.as_json()))
    assert found["training"]["share_of_ceiling"] == pytest.approx(0.8)
    assert found["training"]["share_of_matrix_product"] == pytest.approx(1.2)
    assert found["ceilings"][0]["flops"] == {"median": 100, "lower_quartile": 98, "upper_quartile": 102, "count": 9}
    assert (found["warnings"], found["load_average"]) == ([], 0.1)
