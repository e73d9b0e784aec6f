"""What import-linter's contracts (in pyproject.toml, run by `make check`) do not see."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grimp
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

import fedbench

PACKAGE = Path(fedbench.__file__).parent
BY_NAME = {
    "cli/lazy.py", "entries/registry.py", "isolation/entries.py", "isolation/serving.py", "plugins/moved.py",
    "runs/worker.py",
}  # fmt: skip
"""Who imports what is named at run time: torch, entries and what they derive from, what has moved, what runs a run or checks
a file."""


def test_no_module_reaches_itself() -> None:
    """Packages and their modules, too, but for a face, which may take names from its own modules."""
    graph = grimp.build_graph("fedbench", cache_dir=None)
    names = sorted(graph.modules)
    place = {name: index for index, name in enumerate(names)}
    arrows = [
        (place[name], place[other])
        for name in names
        for other in graph.find_modules_directly_imported_by(name)
        if "fedbench" not in (name, other)
    ]
    matrix = csr_matrix((np.ones(len(arrows)), tuple(np.array(arrows).T)), shape=(len(names), len(names)))
    _, of = connected_components(matrix, connection="strong")
    circles = [[name for name in names if of[place[name]] == each] for each in np.flatnonzero(np.bincount(of) > 1)]
    assert circles == []


def test_nobody_inside_goes_through_the_door() -> None:
    names = set(dir(fedbench))
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "fedbench":
                assert not names & {alias.name for alias in node.names}, path
            if isinstance(node, ast.Import):
                assert not any(alias.name == "fedbench" and alias.asname for alias in node.names), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fedbench":
                assert node.attr not in names, path


def test_modules_that_are_imported_by_name_are_few() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if {"import_module", "__import__"}
        & set(path.read_text(encoding="utf-8").replace("(", " ").replace(".", " ").split())
    }
    assert found == BY_NAME


def test_nobody_is_told_to_install_what_another_project_has_under_this_name() -> None:
    """`fedbench` on PyPI is not this one: it is installed from a checkout or a wheel."""
    root = PACKAGE.parent
    texts = [
        *root.glob("*.md"),
        *(root / "leaderboard").glob("*.ipynb"),
        *PACKAGE.rglob("*.md"),
        *PACKAGE.rglob("*.py"),
    ]
    told = re.compile(r"pip install (?:-\S+ )*'?fedbench")
    assert [file.name for file in texts if told.search(file.read_text(encoding="utf-8"))] == []
    assert told.search("pip install --no-deps fedbench && x")
    assert told.search("pip install 'fedbench[ray]'")
