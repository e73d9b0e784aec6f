"""Tables of the leaderboard as LaTeX (booktabs), with intervals and marks of what the runs can tell apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from fedbench.leaderboard.separation import Separation
from fedbench.leaderboard.sheets import Sheet, columns_that_fit
from fedbench.texts import visible

NEEDS = r"\usepackage[T1]{fontenc} and \usepackage{array,booktabs,graphicx}"
"""What a document has to have where tables go into it."""
WIDTH = 84
"""Characters of a row that fit into the text of a page in small type."""
NARROW = 24
"""Columns of words that are longer are broken."""
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{array,booktabs,graphicx}
\begin{document}
"""
MARKS = (
    "Bold: the runs leave the first place open to it; *: significantly worse than the first one that is ranked (paired t"
    " tests over seeds, Holm's correction over all pairs of the table, 5 %). Intervals: 95 %."
)

_FITTED = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
"""The table in box 0, made smaller where it is wider than the text."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": r"{[}",
    "]": r"{]}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u2014": "---",
    "\u00d7": r"$\times$",
    "\u2265": r"$\geq$",
    "\u2264": r"$\leq$",
    "\u00b1": r"$\pm$",
    "\u2019": "'",
    "\u2026": r"\dots{}",
}


def latex(sheets: Sequence[Sheet], origin: str, document: bool = False, wide: bool = False) -> str:
    r"""Tables to be read by ``\input``, or a document that compiles.

    Args:
        sheets: the tables. origin: where the numbers come from, for a comment. document: whether to make it a whole one.
        wide: all columns, also of those tables that no page has room for; otherwise those that fit.
    """
    between = "\\clearpage\n" if document else "\n"  # else TeX would have to keep more tables than it can
    tables = between.join(_table(sheet, wide) for sheet in sheets)
    head = f"% {visible(' '.join(origin.split()))}\n"
    if document:
        return f"{head}{PREAMBLE}{tables}\\end{{document}}\n"
    return f"{head}% needs {NEEDS}\n{tables}"


def escaped(text: str) -> str:
    """``text`` as LaTeX takes it literally, on one line; what pdflatex has no letter for is spelt out.

    Signs of negative numbers and comparisons are set as in mathematics.
    """
    plain = " ".join(text.split()).replace(">=", "\u2265").replace("<=", "\u2264")
    out = []
    for each in visible(re.sub(r"(?<![\w.)-])-(?=\d)", "\u2212", plain)):
        if each in _SPECIAL:
            out.append(_SPECIAL[each])
        elif each.isascii() or ("\u00c0" <= each <= "\u017f" and each.isalpha()):
            out.append(each)
        else:
            spelt = unicodedata.normalize("NFKD", each).encode("ascii", "ignore").decode()
            out.append("".join(_SPECIAL.get(one, one) for one in spelt) or f"U+{ord(each):04X}")
    return "".join(out)


def _table(sheet: Sheet, wide: bool) -> str:
    columns = list(range(len(sheet.headings))) if wide else columns_that_fit(sheet, WIDTH)
    bold, starred = _marked(sheet.told)
    lines = [r"\begin{table}[ht]", r"\centering\small", rf"\caption{{{escaped(sheet.title)}}}"]
    lines += [rf"\label{{tab:{_label(sheet.title)}}}", r"\sbox0{%"]
    lines += [rf"\begin{{tabular}}{{{_preamble(sheet, columns)}}}", r"\toprule"]
    lines += [_row([escaped(sheet.headings[n]) for n in columns]), r"\midrule"]
    for row in sheet.rows:
        cells = []
        for n in columns:
            text = re.sub(r"(?<=\d)-(?=\d)", "\u2013", row[n]) if sheet.headings[n] == "rank" else row[n]
            cell = escaped(text)
            if sheet.headings[n] in ("attack", "defense"):
                cell = rf"\textbf{{{cell}}}" if row[n] in bold else cell
                cell += "$^{*}$" if row[n] in starred else ""
            cells.append(cell)
        lines.append(_row(cells))
    lines += [r"\bottomrule", r"\end{tabular}}%", _FITTED]
    if notes := _notes(sheet):
        lines.append(rf"\par\medskip\parbox{{\linewidth}}{{\footnotesize {escaped(notes)}}}")
    return "\n".join([*lines, r"\end{table}", ""])


def _marked(told: Separation | None) -> tuple[set[str], set[str]]:
    """The entries that are set in bold, and those with a star."""
    if told is None or len(told.ranks) < 2:
        return set(), set()
    first = next(iter(told.ranks))
    return {name for name, (rank, _) in told.ranks.items() if rank == 1}, set(told.beats[first])


def _notes(sheet: Sheet) -> str:
    """What is said below the table."""
    marks = MARKS if any(_marked(sheet.told)) else ""
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in (sheet.caption, marks) if part)


def _label(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _preamble(sheet: Sheet, columns: Sequence[int]) -> str:
    """Flush left for words, broken where they are long, flush right for numbers."""
    found = []
    for n in columns:
        longest = max((len(row[n]) for row in sheet.rows), default=0)
        words = sheet.headings[n] in sheet.text
        broken = words and longest > NARROW
        found.append(r">{\raggedright\arraybackslash}p{0.2\linewidth}" if broken else "l" if words else "r")
    return "".join(found)


def _row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"
