"""Which length control may a board rank by: simulated boards whose truth is known, and AlpacaEval's own board.

    python benchmarks/length_control.py                        # the simulation, two minutes on one core
    python benchmarks/length_control.py --alpaca-eval FOLDER   # a checkout of github.com/tatsu-lab/alpaca_eval

Prints Markdown tables, in points of a hundred. A simulated judge compares systems with one baseline; it likes long
answers, a little differently from system to system, and items differ in difficulty. The truth is the mean preference
that the same judge would have given at equal length. One system of every board answers in 68 characters, badly.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rba_bench.metrics.lc_pooled import fit_pooled, pooled_intervals
from rba_bench.metrics.win_rate import Gamed, length_controlled

Floats = NDArray[np.float64]
TERSE = 68
SURE, NOISE = 2.0, 3.0  # preferences of a judge with odds lie near 0 and 1
JUDGED = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "gpt4_1106_preview"
WEIGHTS = f"src/alpaca_eval/metrics/weights/{JUDGED}/length_controlled_v1/baseline_{BASELINE}.csv"
BOARD = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{JUDGED}_leaderboard.csv"


@dataclass(frozen=True)
class Board:
    """Systems `[m]` on items `[n]`: preferences and lengths `[m, n]`, the baseline's lengths `[n]`, the truth `[m]`.

    `terse` is the system of 68 characters; `difficulty` `[n]` and `gamed` are what AlpacaEval's tables would hold.
    """

    preferences: Floats
    lengths: Floats
    baseline: Floats
    truth: Floats
    difficulty: Floats
    gamed: Gamed
    terse: int = 0


def simulated(rng: np.random.Generator, systems: int, items: int) -> Board:
    """A board as in the module; spreads and correlations are about those of AlpacaEval's annotations."""
    wish = rng.normal(0, 1, items)  # some instructions ask for long answers, and are a little harder
    difficulty = 1.5 * (rng.normal(0, 1, items) - 0.2 * wish)
    baseline = _lengths(rng, np.full(1, 7.3), wish)[0]
    lengths = _lengths(rng, rng.uniform(5.5, 7.5, systems), wish)
    lengths[0] = np.maximum(rng.normal(TERSE, 5, items), 1).round()
    skill = rng.normal(-2.0, 1.3, systems)
    skill[0] = rng.normal(-3.0, 0.5)
    tastes, weights = rng.normal(-1.8, 0.25, (systems, 1)), rng.uniform(0.8, 1.2, (systems, 1))
    lacks = rng.uniform(
        0, 0.4, systems
    )  # weak systems are weakest where much is to be said: no matter of length
    lacks[0] = 0.8
    equal = weights * difficulty + skill[:, None] - lacks[:, None] * wish
    noise = rng.normal(0, NOISE, (systems, items))
    preferences = sigmoid(SURE * (equal + tastes * _standardised(baseline - lengths)) + noise)
    truth = sigmoid(SURE * equal + noise).mean(axis=1)
    longer = (
        baseline * np.array([[-0.2], [0.45]]) * rng.lognormal(0, 0.3, (2, items))
    )  # verbose and concise copies
    liked = sigmoid(
        SURE * (0.8 * difficulty - 1.6 * _standardised(longer)) + rng.normal(0, NOISE, longer.shape)
    )
    std = longer / longer.std(axis=1, ddof=1, keepdims=True)
    table_of = dict(enumerate(difficulty.tolist()))
    gamed = Gamed(liked.ravel(), std.ravel(), np.tile(difficulty, 2), table_of)
    return Board(preferences, lengths, baseline, truth, difficulty, gamed)


def _lengths(rng: np.random.Generator, means: Floats, wish: Floats) -> Floats:
    drawn = means[:, None] + 0.8 * wish + rng.normal(0, 0.5, (len(means), len(wish)))
    return np.asarray(np.exp(np.minimum(drawn, 9.0)).round())


def _standardised(longer: Floats) -> Floats:
    return np.asarray(np.tanh(longer / longer.std(axis=1, ddof=1, keepdims=True)))


def sigmoid(values: Floats) -> Floats:
    """Logistic function."""
    return np.asarray(1 / (1 + np.exp(-values)))


def _each(board: Board, difficulty: Floats | None, gamed: Gamed | None) -> Floats:
    fits = [
        length_controlled(wins, lengths, board.baseline, difficulty, gamed).rate
        for wins, lengths in zip(board.preferences, board.lengths, strict=True)
    ]
    return np.array(fits)


FORMS: dict[str, Callable[[Board], Floats]] = {
    "raw win rate": lambda board: board.preferences.mean(axis=1),
    "`lc: minimal`": lambda board: _each(board, None, None),
    "`lc: difficulty_noreg`": lambda board: _each(board, board.difficulty, None),
    "`lc: difficulty`": lambda board: _each(board, board.difficulty, board.gamed),
    "pooled over the board": lambda board: fit_pooled(board.preferences, board.lengths, board.baseline).rates,
}


def judged(boards: Sequence[Board], form: str) -> list[str]:
    """Mean error, mean absolute error, error of the terse system, rank correlation with the truth."""
    from scipy.stats import spearmanr

    found = []
    for board in boards:
        rates = FORMS[form](board)
        errors = 100 * (rates - board.truth)
        found.append(
            [errors.mean(), np.abs(errors).mean(), errors[board.terse], spearmanr(rates, board.truth)[0]]
        )
    shift, size, terse, ranks = np.mean(found, axis=0)
    return [f"{shift:+.1f}", f"{size:.1f}", f"{terse:+.1f}", f"{ranks:.4f}"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for line in (headings, ["---", *["---:"] * (len(headings) - 1)], *rows):
        print("| " + " | ".join(line) + " |")
    print()


def simulation(rng: np.random.Generator) -> None:
    """The forms on boards of 16 systems, the pooled one on smaller and larger boards, and its intervals."""
    error = ["mean error", "mean absolute error", "error of the terse system", "rank correlation"]
    boards = [simulated(rng, 16, 400) for _ in range(5)]
    table(["16 systems, 400 items", *error], [[form, *judged(boards, form)] for form in FORMS])
    rows = []
    for systems in (4, 8, 12, 20, 40):
        for items in (200, 636):
            boards = [simulated(rng, systems, items) for _ in range(20)]
            fits = [fit_pooled(board.preferences, board.lengths, board.baseline) for board in boards]
            known = f"{np.mean([fit.slope_error for fit in fits]):.2f}"
            raw = judged(boards, "raw win rate")[1:3]
            rows.append([str(systems), str(items), *judged(boards, "pooled over the board"), known, *raw])
    headings = [
        "systems",
        "items",
        *error,
        "error of the slope",
        "raw: mean absolute error",
        "raw: error of the terse",
    ]
    table(headings, rows)
    table(
        ["95 % intervals, 200 items", "covered", "wider than the raw one by"],
        [_coverage(rng, m) for m in (12, 20)],
    )


def _coverage(rng: np.random.Generator, systems: int, boards: int = 25) -> list[str]:
    """Share of pooled intervals that hold what the judge would say of all items of the kind."""
    covered, wider = [], []
    for _ in range(boards):
        large = simulated(rng, systems, 2000)
        few = slice(0, 200)
        sub = large.preferences[:, few], large.lengths[:, few], large.baseline[few]
        _, intervals = pooled_intervals(*sub, resamples=60)
        covered += [low.low <= truth <= low.high for low, truth in zip(intervals, large.truth, strict=True)]
        raw = 3.92 * sub[0].std(axis=1) / len(sub[2]) ** 0.5
        wider += [(each.high - each.low) / width for each, width in zip(intervals, raw, strict=True)]
    return [f"{systems} systems", f"{100 * np.mean(covered):.0f} %", f"{np.median(wider):.2f} times"]


def published(folder: Path, gamed_file: Path | None) -> tuple[Board, list[str]]:
    """AlpacaEval's board as far as its annotations are in `folder`; the truth is the published controlled rate."""
    order = [row["instruction"] for row in _json(folder / "results" / BASELINE / "model_outputs.json")]
    weights = {row[""]: [float(v) for v in list(row.values())[1:]] for row in _rows(folder / WEIGHTS)}
    rates = {row[""]: row["length_controlled_winrate"] for row in _rows(folder / BOARD)}
    names, preferences, lengths, baseline = [], [], [], np.zeros(len(order))
    for file in sorted((folder / "results").glob(f"*/{JUDGED}/annotations.json")):
        name = file.parent.parent.name
        by_text = {row["instruction"]: row for row in _json(file) if row["preference"] is not None}
        if name == BASELINE or not rates.get(name) or any(text not in by_text for text in order):
            continue
        rows = [by_text[text] for text in order]
        names.append(name)
        preferences.append([float(row["preference"]) - 1 for row in rows])
        lengths.append([len(row["output_2"]) for row in rows])
        baseline = np.array([len(row["output_1"]) for row in rows], dtype=np.float64)
    wins, chars = np.array(preferences), np.array(lengths, dtype=np.float64)
    keep = np.unique(wins, axis=0, return_index=True)[1]  # some systems stand twice
    names, wins, chars = [names[i] for i in keep], wins[keep], chars[keep]
    truth = np.array([float(rates[name]) for name in names]) / 100
    if gamed_file is None:
        difficulty, gamed = _rebuilt(
            folder, np.array([weights[n] for n in names]), wins, chars, baseline, weights, order
        )
    else:
        from rba_bench.metrics.win_rate import read_gamed

        gamed = read_gamed(gamed_file)
        difficulty = np.array([gamed.by_index[i] for i in range(len(order))])
    return Board(wins, chars, baseline, truth, difficulty, gamed, int(chars.mean(axis=1).argmin())), names


def _rebuilt(
    folder: Path,
    weights: Floats,
    wins: Floats,
    chars: Floats,
    baseline: Floats,
    published_weights: dict[str, list[float]],
    order: Sequence[str],
) -> tuple[Floats, Gamed]:
    """AlpacaEval's tables without its file: the difficulties that its published weights make likeliest, and the gamed
    copies of the baseline as its weights predict them at their true lengths."""
    taste, scale, skill = weights.T[:, :, None]
    length, difficulty = _standardised(baseline - chars), np.zeros(len(baseline))
    for _ in range(50):
        fitted = sigmoid(taste * length + scale * difficulty + skill)
        ascent = ((wins - fitted) * scale).sum(axis=0) - 0.05 * difficulty
        difficulty = difficulty + np.clip(
            ascent / ((fitted * (1 - fitted) * scale**2).sum(axis=0) + 0.05), -1, 1
        )
    longer = []
    for name in (f"{BASELINE}_verbose", f"{BASELINE}_concise"):
        by_text = {
            r["instruction"]: len(r["output"])
            for r in _json(folder / "results" / name / "model_outputs.json")
        }
        longer.append(baseline - np.array([by_text[text] for text in order]))
    std = np.array(longer) / np.std(longer, axis=1, ddof=1, keepdims=True)
    copies = np.array([published_weights[f"{BASELINE}_{kind}"] for kind in ("verbose", "concise")]).T[
        :, :, None
    ]
    liked = sigmoid(copies[0] * np.tanh(std) + copies[1] * difficulty + copies[2])
    table_of = dict(enumerate(difficulty.tolist()))
    return difficulty, Gamed(liked.ravel(), std.ravel(), np.tile(difficulty, 2), table_of)


def real_board(folder: Path, gamed_file: Path | None) -> None:
    """The forms on AlpacaEval's systems, and the pooled one on boards drawn from them."""
    board, names = published(folder, gamed_file)
    error = ["mean error", "mean absolute error", "error of the terse system", "rank correlation"]
    tables = "its tables" if gamed_file else "tables rebuilt"
    heading = f"{len(names)} systems of AlpacaEval, {tables}"
    table([heading, *error], [[form, *judged([board], form)] for form in FORMS])
    rng, rows = np.random.default_rng(2), []
    for systems in (8, 12, 20, 30):
        for items in (199, 636):
            drawn = [_part(board, rng, systems, items) for _ in range(20)]
            rows.append(
                [
                    str(systems),
                    str(items),
                    *judged(drawn, "pooled over the board"),
                    *judged(drawn, "raw win rate"),
                ]
            )
    table(["systems drawn", "items", *error, *(f"raw: {text}" for text in error)], rows)


def _part(board: Board, rng: np.random.Generator, systems: int, items: int) -> Board:
    others = np.delete(np.arange(len(board.truth)), board.terse)
    chosen = np.concatenate([[board.terse], rng.choice(others, systems - 1, replace=False)])
    some = rng.choice(len(board.baseline), items, replace=False)
    cut = np.ix_(chosen, some)
    return Board(
        board.preferences[cut],
        board.lengths[cut],
        board.baseline[some],
        board.truth[chosen],
        board.difficulty[some],
        board.gamed,
    )


def _json(file: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def main() -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alpaca-eval", type=Path, help="checkout of tatsu-lab/alpaca_eval with its results")
    parser.add_argument("--gamed", type=Path, help="df_gamed.csv; without it the tables are rebuilt")
    chosen = parser.parse_args()
    if chosen.alpaca_eval is None:
        simulation(np.random.default_rng(1))
    else:
        real_board(chosen.alpaca_eval, chosen.gamed)


if __name__ == "__main__":
    main()
