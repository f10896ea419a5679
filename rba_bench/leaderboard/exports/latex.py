r"""Tables as LaTeX: `booktabs`, intervals in small print, and no text of a record taken for a command.

Letters of other alphabets stay as they are: LuaLaTeX and XeLaTeX set them with a font that has them.
"""

import re
from collections.abc import Sequence

from rba_bench.leaderboard.tables import LONGEST, NOTHING, TextTable
from rba_bench.untrusted import plain

PREAMBLE = "% Needs \\usepackage{booktabs}. Made by rba-bench; the same records give the same bytes.\n"
# Commands that every font encoding has; what `plain` puts in place of < and > becomes these again
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "‹": "$<$", "›": "$>$", "|": "$|$",
    "-": "{-}", "'": "{'}", "*": r"\textasteriskcentered{}", "…": r"\ldots{}",
}  # fmt: skip
_INTERVAL = re.compile(r"([+-]?[\d.]+) \[([+-]?[\d.]+), ([+-]?[\d.]+)\]( \*)?(.*)")


def escape(text: object) -> str:
    """`text` as LaTeX sets it letter by letter; a run of hyphens does not become a dash."""
    return "".join(_SPECIAL.get(letter, letter) for letter in plain(text, LONGEST))


def latex_table(table: TextTable, notes: Sequence[str] = (), label: str = "") -> str:
    r"""A table with its title as caption.

    Args:
        table: Its cells are text; `value [low, high]` becomes a value with its interval in small print.
        notes: Sentences below the table.
        label: For `\ref`; letters, digits and hyphens.
    """
    first = table.numeric_from
    columns = "".join("l" if i < first else "r" for i in range(len(table.headings)))
    head = [_heading(heading) if i >= first else escape(heading) for i, heading in enumerate(table.headings)]
    body = [[_cell(cell) for cell in row] for row in table.rows]
    sentences = " ".join(f"{escape(note.rstrip('.'))}." for note in notes)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        *([rf"\label{{{label}}}"] if label else []),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *([rf"\par\footnotesize {sentences}"] if notes else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _heading(text: str) -> str:
    """Words below each other, as names of tasks and metrics are longer than their numbers."""
    lines = r" \\ ".join(escape(word) for word in plain(text).split(" ", 2))
    return rf"\shortstack[r]{{{lines}}}"


def _cell(text: str) -> str:
    if text == NOTHING:
        return "--"
    if not (found := _INTERVAL.fullmatch(plain(text))):
        return escape(text)
    value, low, high = (number.replace("-", "$-$").replace("+", "$+$") for number in found.groups()[:3])
    star = "$^{*}$" if found[4] else ""
    return rf"{value}{star} {{\scriptsize [{low}, {high}]}}{escape(found[5])}"
