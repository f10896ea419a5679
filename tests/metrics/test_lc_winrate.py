"""Length-controlled win rate: the value of the alpaca_eval package, and intervals that hold."""

import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import packaging.version
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.metrics import win_rate
from rba_bench.metrics.bootstrap import bootstrap_mean
from rba_bench.metrics.win_rate import Gamed, difficulties, length_controlled, read_difficulty, read_gamed

N = 805


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def comparisons(
    seed: int, skill: float, taste: float = 1.5, n: int = N
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Preferences of a judge with a taste for length, lengths of both answers, difficulties."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(9).normal(size=n)
    lengths = np.exp(rng.normal(7.0 + 0.3 * skill, 0.6, n)).astype(int)
    baseline = np.exp(np.random.default_rng(8).normal(7.3, 0.5, n)).astype(int)
    delta = (baseline - lengths) / (baseline - lengths).std(ddof=1)
    logits = skill + 0.6 * difficulty - taste * np.tanh(delta) + rng.normal(0, 1.5, n)
    return sigmoid(2 * logits), lengths, baseline, difficulty


@pytest.fixture(scope="module")
def gamed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with the columns of `df_gamed.csv`: two gamed copies of the baseline on all instructions."""
    file = tmp_path_factory.mktemp("gamed") / "df_gamed.csv"
    lines = ["preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline,model"]
    difficulty = np.random.default_rng(9).normal(size=N)
    for number, (model, shift) in enumerate((("verbose", -1.2), ("concise", 1.4))):
        rng = np.random.default_rng(20 + number)
        delta = rng.normal(shift, 0.8, N)
        preference = sigmoid(0.5 * difficulty - 1.2 * np.tanh(delta) + rng.normal(0, 1, N))
        rows = zip(preference.tolist(), range(N), delta.tolist(), difficulty.tolist(), strict=True)
        lines += [f"{p!r},{i},{d!r},{hard!r},False,{model}" for p, i, d, hard in rows]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def sklearn_as_it_was() -> Iterator[None]:
    """The package switches metadata routing on for the whole process."""
    import sklearn

    before = sklearn.get_config()["enable_metadata_routing"]
    yield
    sklearn.set_config(enable_metadata_routing=before)


def _stand_in_for_pkg_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package imports this for two version look-ups; newer setuptools no longer bring it."""
    if importlib.util.find_spec("pkg_resources") is None and "alpaca_eval" not in sys.modules:
        stand_in = types.ModuleType("pkg_resources")
        stand_in.parse_version = packaging.version.parse  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pkg_resources", stand_in)


FORMS = ("length_controlled_minimal", "length_controlled_noreg", "length_controlled_v1")


@pytest.mark.usefixtures("sklearn_as_it_was")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("seed", "skill", "words"), [(1, 1.0, False), (2, -2.5, False), (3, -2.0, True)])
def test_the_value_is_that_of_the_alpaca_eval_package(
    form: str, seed: int, skill: float, words: bool, gamed_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package downloads the table of gamed baselines; here it is given the file, as we are."""
    _stand_in_for_pkg_resources(monkeypatch)
    glm = pytest.importorskip("alpaca_eval.metrics.glm_winrate")
    pandas = pytest.importorskip("pandas")
    preferences, lengths, baseline, difficulty = comparisons(seed, skill)
    if words:  # a judge without odds
        preferences = preferences.round()
    table = pandas.DataFrame(
        {
            "preference": preferences + 1,
            "output_1": ["x" * length for length in baseline.tolist()],
            "output_2": ["x" * length for length in lengths.tolist()],
            "generator_1": "baseline",
            "generator_2": "model",
            "annotator": "judge",
        }
    )
    monkeypatch.setattr(glm, "hf_hub_download", lambda **_: str(gamed_file))
    with warnings.catch_warnings(action="ignore"):
        theirs = glm.get_length_controlled_winrate(table, glm_name=form, save_weights_dir=None)
    hard = None if form == FORMS[0] else difficulty
    ours = length_controlled(
        preferences, lengths, baseline, hard, read_gamed(gamed_file) if form == FORMS[2] else None
    )
    assert 100 * ours.rate == pytest.approx(theirs["length_controlled_winrate"], abs=0.1)
    # There is something to control.
    assert abs(100 * preferences.mean() - theirs["length_controlled_winrate"]) > 0.5


@pytest.mark.parametrize("form", FORMS)
def test_values_carry_the_rate_and_its_uncertainty(
    form: str, gamed_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mean is the rate; their bootstrap is that of the rate fitted again to every resample."""
    n = 300
    preferences, lengths, baseline, difficulty = (column[:n] for column in comparisons(5, -1.0))
    hard = None if form == FORMS[0] else difficulty
    gamed = read_gamed(gamed_file) if form == FORMS[2] else None
    whole = length_controlled(preferences, lengths, baseline, hard, gamed)
    assert whole.values.mean() == pytest.approx(whole.rate, abs=1e-12)
    assert whole.predicted.mean() == pytest.approx(whole.rate)
    monkeypatch.setattr(win_rate, "STRENGTHS", np.array([whole.strength]))  # chosen once: 8 times faster
    rng, refitted = np.random.default_rng(6), []
    for _ in range(60):
        drawn = rng.integers(0, n, n)
        some = None if hard is None else hard[drawn]
        refitted.append(
            length_controlled(preferences[drawn], lengths[drawn], baseline[drawn], some, gamed).rate
        )
    expected = whole.values.std(ddof=1) / n**0.5
    assert 0.7 < np.std(refitted, ddof=1) / expected < 1.4  # 60 draws know a deviation to a tenth or so
    interval = bootstrap_mean(whole.values)
    assert interval.low < whole.rate < interval.high and interval.high - interval.low > 3 * expected


def test_without_a_taste_for_length_control_changes_little() -> None:
    rng = np.random.default_rng(1)
    preferences = rng.beta(2, 1, N)
    lengths, baseline = rng.integers(10, 500, N), rng.integers(10, 500, N)
    found = length_controlled(preferences, lengths, baseline)
    assert found.rate == pytest.approx(preferences.mean(), abs=0.01)
    assert found.values == pytest.approx(preferences, abs=0.15)  # a group's mean is then its win rate


def test_a_taste_for_length_is_taken_out() -> None:
    rng = np.random.default_rng(2)
    lengths = rng.integers(300, 600, N)
    preferences = sigmoid((lengths - 300) / 100 + rng.normal(0, 0.5, N))
    found = length_controlled(preferences, lengths, np.full(N, 300))
    assert preferences.mean() > 0.75 and found.weights["length"] < 0
    assert found.rate < preferences.mean() - 0.1


def test_a_group_is_adjusted_for_length() -> None:
    """Equal skill in both groups, but one gets the long answers: only the plain preference tells them apart."""
    rng = np.random.default_rng(3)
    long = np.arange(600) < 300
    lengths = np.where(long, 500, 300) + rng.integers(-60, 60, 600)
    baseline = rng.integers(300, 500, 600)
    preferences = sigmoid((lengths - baseline) / 100 + rng.normal(0, 0.5, 600))
    found = length_controlled(preferences, lengths, baseline)
    plain = abs(preferences[long].mean() - preferences[~long].mean())
    adjusted = abs(found.values[long].mean() - found.values[~long].mean())
    assert plain > 0.3 and adjusted < 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_but_losses_or_wins(value: float) -> None:
    found = length_controlled([value] * 20, range(20), range(20, 0, -1))
    assert found.rate == value and found.values.tolist() == [value] * 20


def test_one_win_among_losses_reaches_one_fold_only() -> None:
    found = length_controlled([1.0] + [0.0] * 19, range(20), range(20, 0, -1))
    assert 0 < found.rate < 0.5 and np.isfinite(found.values).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_few_items(n: int) -> None:
    found = length_controlled([0.2, 0.9, 0.4, 0.6, 0.1, 0.7][:n], range(n), range(n, 0, -1))
    assert 0 < found.rate < 1 and found.values.shape == (n,)
    assert found.values.mean() == pytest.approx(found.rate)


def test_equal_lengths_everywhere() -> None:
    """The package divides by zero here."""
    preferences = np.random.default_rng(0).random(100)
    found = length_controlled(preferences, [7] * 100, [9] * 100)
    assert found.rate == pytest.approx(preferences.mean(), abs=0.005)
    assert np.isfinite(found.values).all() and found.values.std() == pytest.approx(
        preferences.std(), rel=0.05
    )


def test_wrong_input(gamed_file: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        length_controlled([], [], [])
    with pytest.raises(ValueError, match="different lengths"):
        length_controlled([0.5, 0.5], [1], [2, 3])
    with pytest.raises(ValueError, match="between 0 and 1"):
        length_controlled([1.5, 0.5], [1, 2], [2, 3])
    with pytest.raises(ValueError, match="with difficulties only"):
        length_controlled([0.1, 0.5], [1, 2], [2, 3], None, read_gamed(gamed_file))


def test_tables(gamed_file: Path, tmp_path: Path) -> None:
    gamed = read_gamed(gamed_file)
    assert isinstance(gamed, Gamed) and len(gamed.preferences) == 2 * N and len(gamed.by_index) == N
    assert difficulties([3, 3, 0], gamed.by_index).tolist() == gamed.difficulty[[3, 3, 0]].tolist()
    with pytest.raises(UserError, match="index 805"):
        difficulties([805], gamed.by_index)
    table = tmp_path / "difficulty.csv"
    table.write_text(",instruction_difficulty\n0,0.5\n1,-1.25\n")
    assert read_difficulty(table) == {0: 0.5, 1: -1.25}
    table.write_text("index,value\nfirst,0.5\n")
    with pytest.raises(UserError, match="not a table of index and difficulty"):
        read_difficulty(table)
    table.write_text("index,value\n")
    for read in (read_difficulty, read_gamed):
        with pytest.raises(UserError, match="is empty"):
            read(table)
        with pytest.raises(MissingPrerequisite, match="tatsu-lab/alpaca_eval"):
            read(tmp_path / "absent.csv")


def test_a_handful_of_items_gives_an_interval_that_can_be_read() -> None:
    """Lengths and preferences of a real run of five: the fit there hangs on one item."""
    preferences, lengths = [0.46, 0.33, 0.52, 0.61, 0.39], [2600, 2580, 2612, 2590, 2605]
    found = win_rate.length_controlled(preferences, lengths, [40, 45, 50, 55, 60])
    assert found.values.mean() == pytest.approx(found.rate)
    assert found.values.std() < 2.0
