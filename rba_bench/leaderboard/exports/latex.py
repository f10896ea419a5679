r"""Tables as LaTeX: `booktabs`, intervals in small print, and no text of a record taken for a command.

A table that is wider than the line is scaled down to it (`graphicx`). Letters of other alphabets stay as they are:
LuaLaTeX and XeLaTeX set them with a font that has them, and the file says so; pdfLaTeX stops at them.
"""

import re
from collections.abc import Sequence

from rba_bench.leaderboard.tables import LONGEST, NOTHING, TextTable
from rba_bench.untrusted import plain

MOST_NAMED = 8
PREAMBLE = (
    "% Needs \\usepackage{booktabs,graphicx} and \\usepackage[T1]{fontenc}. Made by rba-bench; the same records give "
    "the same bytes.\n"
)
# Commands that every font encoding has; what `plain` puts in place of < and > becomes these again. A bracket after the
# end of a row would be taken for its height.
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "‹": "$<$", "›": "$>$", "|": "$|$",
    "-": "{-}", "'": "{'}", "`": "{`}", "[": "{[}", "]": "{]}", "*": r"\textasteriskcentered{}", "…": r"\ldots{}",
    "≤": r"$\leq$", "≥": r"$\geq$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\rightarrow$", "µ": r"$\mu$",
}  # fmt: skip
# What pdfLaTeX sets in T1: Latin letters up to here but these, and some signs
_LAST_LATIN, _UNKNOWN, _SIGNS = 0x17F, "ĦħĸĿŀŉŦŧſ", "–—‘’‚“”„•€™"
_INTERVAL = re.compile(r"([+-]?[\d.]+) \[([+-]?[\d.]+), ([+-]?[\d.]+)\]( \*)?(.*)")
_COMMAS = re.compile(r",(?=,)")  # two of them are a quotation mark in T1
_JUDGED = re.compile(r"(.*?) \(judge: (.*)\)")
_FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


def escape(text: object) -> str:
    """`text` as LaTeX sets it letter by letter: hyphens become no dash, quotation marks are not turned."""
    escaped = "".join(_SPECIAL.get(letter, letter) for letter in plain(text, LONGEST))
    return _COMMAS.sub(",{}", escaped)


def engine_note(latex: str) -> str:
    """A comment that names the letters of a file which pdfLaTeX does not know; "" where there is none."""
    foreign = {letter for letter in latex if ord(letter) > _LAST_LATIN} - set(_SIGNS)
    letters = sorted(foreign | (set(_UNKNOWN) & set(latex)))
    if not letters:
        return ""
    more = ", ..." if len(letters) > MOST_NAMED else ""
    named = ", ".join(f"U+{ord(letter):04X}" for letter in letters[:MOST_NAMED]) + more
    return (
        f"% LuaLaTeX or XeLaTeX and a font with {named} are needed: pdfLaTeX does not know these letters.\n"
    )


def latex_table(table: TextTable, notes: Sequence[str] = (), label: str = "") -> str:
    r"""A table with its title as caption.

    Args:
        table: Its cells are text; `value [low, high]` becomes a value with its interval in small print.
        notes: Sentences below the table.
        label: For `\ref`; letters, digits and hyphens.
    """
    first = table.numeric_from
    columns = "".join("l" if i < first else "r" for i in range(len(table.headings)))
    judged = [found if (found := _JUDGED.fullmatch(heading)) else None for heading in table.headings]
    titles = [found[1] if found else title for found, title in zip(judged, table.headings, strict=True)]
    notes = [*notes, *(f"Judge of {found[1].removesuffix(' %')}: {found[2]}" for found in judged if found)]
    head = [_heading(title) if i >= first else escape(title) for i, title in enumerate(titles)]
    body = [[_cell(cell) for cell in row] for row in table.rows]
    sentences = " ".join(f"{escape(note.rstrip('.'))}." for note in notes)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        *([rf"\label{{{label}}}"] if label else []),
        rf"{_FITTING}{{\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}}",
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
