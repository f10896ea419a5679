"""LaTeX that parses strictly, shows each text letter by letter, and holds no command of a record."""

import re
import shutil
import subprocess

import pytest

from rba_bench.leaderboard.exports.latex import engine_note, escape, latex_table
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
        "resizebox",
        "width",
        "linewidth",
    ),
    *("ifdim", "else", "fi", "leq", "geq", "pm", "times"),
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
    "?`who'' said ,,that,, !` ``x``",
    "≤ 3 ± 1 × 2",
    "[2cm] [x] *[1]",
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
    assert not re.search(r"\\\\\s*[\[*]", made), (
        "a bracket after a row's end is its height, a star forbids a new page"
    )


def test_an_interval_is_small_and_a_missing_one_is_a_dash():
    rows = [["a", "-1.5 [-2.0, -1.0] *", NOTHING, "(baseline)"]]
    made = latex_table(TextTable(["model", "x", "y", "z"], rows, "T"))
    assert r"a & $-$1.5$^{*}$ {\scriptsize [$-$2.0, $-$1.0]} & -- & (baseline) \\" in made
    assert r"\begin{tabular}{lrrr}" in made and r"\footnotesize" not in made


def test_a_judge_stands_below_the_table_and_not_in_its_narrow_heading():
    made = latex_table(
        TextTable(["model", "a win_rate % (judge: big_judge (x), y)"], [["m", "1.0 [0.5, 1.5]"]], "T")
    )
    assert "judge" not in made[made.index("toprule") : made.index("midrule")]
    assert r"Judge of a win\_rate: big\_judge (x), y." in made


def test_letters_that_need_another_engine_are_named():
    assert engine_note("Müller, Łódź – “x” €") == ""
    assert "U+6F22, U+5B57" not in engine_note("漢字") and "U+5B57, U+6F22" in engine_note("漢字")
    assert "U+0127" in engine_note("ħ")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)"
)
def test_tables_compile_and_fit_on_the_page(tmp_path):
    names = [text for text in TEXTS if not engine_note(escape(text))] + ["Müller–Łódź/" + "long-name_" * 20]
    cells = ["-12.5 [-100.0, +100.0] *"] * 9
    headings = ["model", *(f"{name} win_rate % (judge: {name})" for name in names[:9])]
    tables = [
        latex_table(TextTable(headings, [[name, *cells] for name in names], "Wide"), names, "tab:a"),
        latex_table(TextTable(["model", "x"], [[name[:20], "1.0 [0.5, 1.5]"] for name in names], "Narrow")),
    ]
    packages = r"\usepackage{booktabs,graphicx}\usepackage[T1]{fontenc}"
    text = [r"\documentclass{article}", packages, r"\begin{document}", *tables, r"\end{document}", ""]
    (tmp_path / "x.tex").write_text("\n".join(text), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "x.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    too_wide = [
        line for line in done.stdout.splitlines() if line.startswith("Overfull") and "alignment" in line
    ]
    wide_tables = [line for line in done.stdout.splitlines() if "too wide" in line and "lines 8--" in line]
    assert not too_wide and not wide_tables
