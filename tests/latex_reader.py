"""A strict reader of the little LaTeX that fedbench writes: what it takes, pdflatex takes."""

from __future__ import annotations

import re

KNOWN = {
    "begin", "end", "documentclass", "usepackage", "centering", "small", "footnotesize", "caption", "label", "toprule",
    "midrule", "bottomrule", "textbf", "par", "medskip", "parbox", "linewidth", "raggedright", "arraybackslash",
    "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "textquotedbl",
    "sbox", "usebox", "ifdim", "wd", "else", "fi", "resizebox", "clearpage",
    "textasciigrave", "geq", "leq", "times", "pm", "dots",
}  # fmt: skip
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}$&#^_%~]|[^\\{}$&#^_%~]", re.DOTALL)


def tables(text: str) -> list[list[list[str]]]:
    """The rows of every tabular, cell by cell as LaTeX; raises ``ValueError`` for anything that is not well formed."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(re.sub(r"(?<=[{}])%$", "", line) for line in lines)
    depth, mathematics, previous = 0, False, ""
    for token in _TOKEN.findall(body):
        if token.startswith("\\") and len(token) > 2 and token[1:] not in KNOWN:
            raise ValueError(f"unknown command {token}")
        if token == "\\":
            raise ValueError("a backslash at the end")
        depth += (token == "{") - (token == "}")
        if depth < 0:
            raise ValueError("a brace is closed that was not opened")
        mathematics ^= token == "$"
        if token in ("#", "%", "~") or (token in ("^", "_") and not mathematics):
            raise ValueError(f"{token} as it is, after {previous!r}")
        if not (token[0].isascii() or "\u00c0" <= token[0] <= "\u017f"):
            raise ValueError(f"no letter for {token!r}")
        previous = token
    if depth or mathematics:
        raise ValueError("braces or mathematics are left open")
    opened: list[str] = []
    for command, name in re.findall(r"\\(begin|end)\{([a-z]+)\}", body):
        if command == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            raise ValueError(f"\\end{{{name}}} does not fit")
    if opened:
        raise ValueError(f"{opened} are left open")
    found = []
    for columns, content in re.findall(
        r"\\begin\{tabular\}\{([^\n]*)\}\n\\toprule\n(.*?)\\bottomrule", body, re.DOTALL
    ):
        width = len(re.sub(r">\{.*?\}p\{.*?\}", "l", columns))
        lines = [line for line in content.splitlines() if line != r"\midrule"]
        rows = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in lines]
        if not all(line.endswith(r" \\") for line in lines) or any(len(row) != width for row in rows):
            raise ValueError(f"not as many cells as columns: {columns} {rows}")
        if any(line.startswith(("[", "*")) for line in lines):
            raise ValueError("the row before would take the begin of this one for its own")
        found.append([[cell.strip() for cell in row] for row in rows])
    return found
