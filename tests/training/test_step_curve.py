"""What is kept of a step log."""

import numpy as np
import pytest

from rba_bench.training.step_curve import POINTS, curve_columns, thin_log


def log(steps: int) -> list[dict[str, float]]:
    """A loss that falls, an accuracy that only even steps have."""
    return [
        {
            "step": step,
            "loss": 10.0 / step,
            "elapsed_s": 2.0 * step,
            **({} if step % 2 else {"accuracy": 1.0}),
        }
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize("steps", [1, 5, POINTS, POINTS + 1, 64, 1000])
def test_every_step_is_in_one_point_and_the_last_is_the_end(steps: int) -> None:
    points = thin_log(log(steps))
    assert len(points) == min(steps, POINTS)
    ends = [int(point["step"] or 0) for point in points]
    assert ends == sorted(set(ends)) and ends[-1] == steps
    for start, end, point in zip([0, *ends], ends, points, strict=False):
        expected = np.mean([10.0 / step for step in range(start + 1, end + 1)])
        assert point["loss"] == pytest.approx(expected, rel=1e-4)
        assert point["seconds"] == 2.0 * end and point["kl"] is None
        assert point["accuracy"] == (None if end - start == 1 and end % 2 else 1.0)


def test_validations_stand_at_their_point_and_before_the_first_step() -> None:
    found = [
        {"step": 0, "validation_loss": 5.0},
        {"step": 3, "answers": []},
        {"step": 10, "validation_loss": 4.0},
        {"step": 64, "validation_loss": 3.0},
    ]
    points = thin_log(log(64), found)
    assert len(points) == POINTS + 1
    values = {
        point["step"]: point["validation_loss"] for point in points if point["validation_loss"] is not None
    }
    assert values == {0.0: 5.0, 10.0: 4.0, 64.0: 3.0} and points[0]["loss"] is None


def test_what_is_no_number_is_left_out() -> None:
    (point,) = thin_log([{"step": 1, "loss": float("nan"), "sft": True, "margin": "1", "kl": 0.123456789}])
    assert (point["loss"], point["sft"], point["margin"], point["kl"]) == (None, None, None, 0.12346)
    assert point["seconds"] is None and thin_log([]) == ()


def test_columns_hold_what_some_point_has() -> None:
    columns = curve_columns(thin_log(log(3)))
    assert columns == {
        **{"step": [1.0, 2.0, 3.0], "seconds": [2.0, 4.0, 6.0]},
        **{"loss": [10.0, 5.0, 3.3333], "accuracy": [None, 1.0, None]},
    }
    assert curve_columns(()) == {}
