"""The typed numbers against what can be computed from them, and the rendered files against the data."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.leaderboard import paper

FOLDER = Path(__file__).parents[2] / "leaderboards" / "paper"
TABLES = {path.stem: paper.load_paper_table(path) for path in sorted(FOLDER.glob("*.yaml"))}


def row(table: str, name: str) -> paper.PaperRow:
    return next(each for each in TABLES[table].rows if each.name == name)


def test_all_tables_are_there_and_each_has_one_version():
    assert list(TABLES) == [*(f"v1-table{number}" for number in (2, 3, 5, 6, 7, 8)), "v2-headline"]
    for name, table in TABLES.items():
        assert table.source.version == name[:2]
        assert table.source.evidence == ("second-hand" if name.startswith("v2") else "read in the paper")


@pytest.mark.parametrize(
    ("name", "average"),
    [("RBA-G", 33.20), ("RBA-S", 32.54), ("SeamlessM4T-L-v2", 29.36), ("Whisper-L-v2", 23.46)],
)
def test_averages_into_english_follow_from_the_languages(name, average):
    assert row("v1-table6", name).recomputed_average() == pytest.approx(average, abs=1e-9)


@pytest.mark.parametrize("table", ["v1-table6", "v1-table7"])
def test_printed_averages_are_the_rounded_ones_except_for_the_marked_misprint(table):
    off = [r for r in TABLES[table].rows if abs(r.recomputed_average() - r.average) > 0.0501]
    assert [r.name for r in off] == [r.name for r in TABLES[table].rows if r.misprint]
    assert [r.name for r in off] == (["RBA-G"] if table == "v1-table7" else [])


def test_table_7_averages_and_the_gain_over_sft():
    averages = {each.name: each.recomputed_average() for each in TABLES["v1-table7"].rows}
    assert [round(value, 2) for value in averages.values()] == [30.32, 30.50, 32.56, 32.92, 40.28]
    assert averages["RBA-S"] - averages["SFT"] == pytest.approx(2.06)
    assert averages["RBA-G"] - averages["SFT"] == pytest.approx(2.42)


def test_without_spanish_and_italian_the_lead_into_english_shrinks_as_noted():
    def rest(name: str) -> float:
        pairs = zip(TABLES["v1-table6"].columns, row("v1-table6", name).values, strict=True)
        kept = [value for language, value in pairs if language not in ("Es", "It")]
        return sum(kept) / len(kept)

    assert (round(rest("RBA-G"), 2), round(rest("SeamlessM4T-L-v2"), 2)) == (32.15, 29.88)
    columns = [TABLES["v1-table6"].columns.index(language) for language in ("Es", "It")]
    rivals = [r for r in TABLES["v1-table6"].rows if not r.name.startswith("RBA")]
    leads = [
        row("v1-table6", name).values[column] - max(rival.values[column] for rival in rivals)
        for name in ("RBA-S", "RBA-G")
        for column in columns
    ]
    assert min(leads) > 9 and max(leads) < 13.5  # "9 to 13 BLEU above the best competitor"


def test_no_length_controlled_gain_over_sft_leaves_its_binomial_half_width():
    table = TABLES["v1-table5"]
    assert paper.half_width(200) == pytest.approx(6.93, abs=0.01)
    for each in table.rows:
        for column, value in zip(table.columns, each.values, strict=True):
            if column.endswith("LC"):
                assert abs(value - 50) < paper.half_width(each.n)
    assert row("v1-table5", "in-domain").values[2] - 50 > paper.half_width(1600)  # raw win rates may


def test_win_rates_are_multiples_of_half_a_point_and_in_the_printed_range():
    table = TABLES["v1-table2"]
    values = [value for each in table.rows for value in each.values]
    assert all(value * 2 == round(value * 2) for value in values)
    in_domain = table.rows[:8]
    assert (min(r.values[4] for r in in_domain), max(r.values[4] for r in in_domain)) == (78.5, 95.5)
    assert (min(r.values[0] for r in in_domain), max(r.values[0] for r in in_domain)) == (72.0, 81.0)
    assert sum(each.n for each in in_domain) == row("v1-table5", "in-domain").n == 1600


def test_versions_differ_where_the_reference_says_so():
    v1, v2 = row("v1-table3", "RBA-S"), {each.name: each.values[0] for each in TABLES["v2-headline"].rows}
    assert (v1.values[0], v2["WebQuestions, accuracy"]) == (40.7, 51.3)
    assert (v1.values[2], v2["TriviaQA, accuracy"]) == (55.1, 65.2)
    assert (round(row("v1-table6", "RBA-G").recomputed_average(), 1), v2["FLEURS test, average"]) == (
        33.2,
        36.8,
    )
    assert [each.values[0] for each in TABLES["v1-table8"].rows] == [0.826, 0.893, 0.945]


def test_rendered_files_are_up_to_date(tmp_path):
    for file in paper.build_paper_tables(FOLDER, tmp_path).files:
        name = file.relative_to(tmp_path)
        assert (FOLDER / name).read_text() == file.read_text(), (
            f"{name} is stale: run leaderboard.paper.build"
        )
    made, published = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.suffix not in ("", ".yaml")}
        for folder in (tmp_path, FOLDER)
    )
    assert made == published


def test_page_shows_source_version_and_both_averages():
    page = (FOLDER / "index.md").read_text()
    assert page.count("arXiv 2509.03526, v1 of 2025-08-25") == 6 and page.count("second-hand. Data") == 1
    assert "| RBA-G | 30.3 | 47.3 | 23.8 | 38.1 | 25.1 | 33.0 | 32.92 |" in page
    assert "| GSLM | 1.5 | 4.0 | - |" in page


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: v1", "version: v3", "v1"),
        ("[0.826]", "[0.826, 0.9]", "2 values for 1 columns"),
        ("metric:", "metrik:", "metrik"),
        ("columns:", "columns: [", "not a table"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path, old, new, message):
    text = (FOLDER / "v1-table8.yaml").read_text()
    assert old in text
    (tmp_path / "x.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        paper.build_paper_tables(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no tables"):
        paper.build_paper_tables(tmp_path)
