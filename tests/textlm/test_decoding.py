"""The vocabulary of decoding: names and refused values."""

import pytest

from rba_bench.errors import UserError
from rba_bench.textlm.text_model import Decoding


@pytest.mark.parametrize(
    ("decoding", "name"),
    [
        (Decoding(), "greedy"),
        (Decoding(temperature=0, top_p=0.9), "greedy"),
        (Decoding(temperature=1), "sampled-t1.0"),
        (Decoding(temperature=0.7, top_p=0.9), "sampled-t0.7-p0.9"),
    ],
)
def test_names(decoding: Decoding, name: str) -> None:
    assert decoding.name == name
    assert decoding.greedy == (name == "greedy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_values_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Decoding(**values)  # type: ignore[arg-type]
