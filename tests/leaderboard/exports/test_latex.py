"""LaTeX that parses strictly, shows each text letter by letter, and holds no command of a record."""

import pytest

from rba_bench.leaderboard.exports.latex import escape, latex_table
from rba_bench.leaderboard.tables import NOTHING, TextTable
from rba_bench.untrusted import plain
from tests.leaderboard.exports.given import HOSTILE

latexwalker = pytest.importorskip("pylatexenc.latexwalker", reason="installed by `make setup`")
latex2text = pytest.importorskip("pylatexenc.latex2text")
OURS = {
    *("caption", "label", "centering", "toprule", "midrule", "bottomrule", "shortstack", "scriptsize", "par"),
    *(
        "footnotesize",
        "\\",
        "&",
        "%",
        "#",
        "_",
        "$",
        "{",
        "}",
        "textbackslash",
        "textasciitilde",
        "textless",
    ),
    *("textasciicircum", "textgreater", "textasteriskcentered", "ldots"),
}


def nodes(text: str):
    walker = latexwalker.LatexWalker(text, tolerant_parsing=False)
    found, position, length = walker.get_latex_nodes()
    assert position + length == len(text)  # all of it was parsed
    return found


def macros(found) -> set[str]:
    names = set()
    for node in found or []:
        if node is None:
            continue
        if node.isNodeType(latexwalker.LatexMacroNode):
            names.add(node.macroname)
            names |= macros(node.nodeargd.argnlist if node.nodeargd else [])
        elif node.isNodeType(latexwalker.LatexCommentNode):
            raise AssertionError(f"a comment swallows the rest of its line: {node.comment}")
        names |= macros(getattr(node, "nodelist", None))
    return names


TEXTS = [
    *HOSTILE,
    "a_b^c~d",
    "50 % of $x$ & #1",
    "\\",
    "{",
    "}}{{",
    "a--b---c",
    "|\"'`<>",
    "\\begin{x}",
    "^^M",
    "a\\\\b",
    "-",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_reads_back_as_it_is_shown(text):
    escaped = escape(text)
    assert macros(nodes(escaped)) <= OURS
    read = latex2text.LatexNodes2Text(strict_latex_spaces=True).latex_to_text(escaped)
    same = str.maketrans({"⁎": "*", "ˆ": "^", "’": "'", "‘": "'", "”": '"', "‹": "<", "›": ">"})
    assert read.translate(same) == plain(text).translate(same)


@pytest.mark.parametrize("text", TEXTS)
def test_a_table_of_such_texts_parses_and_keeps_its_shape(text):
    rows = [[text, "1.0 [0.5, -1.5] *", NOTHING], [f"{text} (ref)", text, "+2.0 [1.0, 3.0] (partial)"]]
    made = latex_table(
        TextTable(["model", f"{text} {text} x y", "n"], rows, text), [text, "A note"], "tab:x-1"
    )
    [table] = [node for node in nodes(made) if node.isNodeType(latexwalker.LatexEnvironmentNode)]
    assert table.environmentname == "table" and macros([table]) <= OURS
    assert made.count("\n") == 14 and made.count("{tabular}") == 2
    body = made[made.index("\\midrule") : made.index("\\bottomrule")].splitlines()[1:]
    assert len(body) == 2 and all(line.endswith(r" \\") for line in body)


def test_an_interval_is_small_and_a_missing_one_is_a_dash():
    rows = [["a", "-1.5 [-2.0, -1.0] *", NOTHING, "(baseline)"]]
    made = latex_table(TextTable(["model", "x", "y", "z"], rows, "T"))
    assert r"a & $-$1.5$^{*}$ {\scriptsize [$-$2.0, $-$1.0]} & -- & (baseline) \\" in made
    assert r"\begin{tabular}{lrrr}" in made and r"\footnotesize" not in made
