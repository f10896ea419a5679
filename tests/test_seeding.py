"""Seeds depend on names only: same parts, same seed, everywhere and for ever."""

import subprocess
import sys

from rba_bench.seeding import stable_seed


def test_seed_is_the_same_in_another_process() -> None:
    code = "from rba_bench.seeding import stable_seed; print(stable_seed('rollout', 1, 'clip-ä', 0.5, True, None))"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(other.stdout) == stable_seed("rollout", 1, "clip-ä", 0.5, True, None)


def test_seed_values_are_pinned() -> None:
    """A change here changes every published number."""
    assert stable_seed("rollout", 1, "a") == 4_787_100_337_973_823_658


def test_different_parts_give_different_seeds() -> None:
    parts = [("a", "b"), ("ab",), ("a", "b", ""), (1,), ("1",), (1.0,), (True,), (None,), ("",), ()]
    assert len({stable_seed(*part) for part in parts}) == len(parts)


def test_seeds_fit_torch_and_spread_over_the_range() -> None:
    seeds = [stable_seed("spread", n) for n in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0.45 < sum(seed < 2**62 for seed in seeds) / len(seeds) < 0.55
