"""The source of an entry that comes along, as a file of its own."""

from __future__ import annotations

import ast
import inspect


def source_of(cls: type) -> str:
    """The module of an entry without the other entries in it: a file has one."""
    own = {each.__name__ for each in cls.__mro__}
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls) or object))

    def is_another(node: ast.stmt) -> bool:
        return isinstance(node, ast.ClassDef) and node.name not in own and "card = " in ast.unparse(node)

    tree.body = [node for node in tree.body if not is_another(node)]
    return ast.unparse(tree)
