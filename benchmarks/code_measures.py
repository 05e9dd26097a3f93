"""Prints what makes the code hard to take over: long functions, many parameters, wide classes.

Run from the root of a checkout::

    python benchmarks/code_measures.py
    python benchmarks/code_measures.py --list  # also which they are

Lines of a function are those from ``def`` to its end, its docstring left out. Parameters are all
that it takes but ``self`` and ``cls``. Methods are those that a class itself defines, properties
and special methods among them.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MOST_LINES, MOST_PARAMETERS, MOST_METHODS = 60, 8, 12


@dataclass
class Measures:
    """What was counted in a tree of Python files."""

    lines: int = 0
    comments: int = 0
    long_functions: list[str] = field(default_factory=list)
    many_parameters: list[str] = field(default_factory=list)
    wide_classes: list[str] = field(default_factory=list)
    exported: int = 0
    names_twice: list[str] = field(default_factory=list)
    classes_twice: list[str] = field(default_factory=list)

    @property
    def comment_share(self) -> float:
        """Lines with a comment, of all lines."""
        return self.comments / self.lines if self.lines else 0.0


def measure(root: Path) -> Measures:
    """Counts in every Python file below a folder."""
    found = Measures()
    modules: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(root).as_posix()
        if not path.name.startswith("__"):
            modules[path.stem] += 1
        found.lines += len(text.splitlines())
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        found.comments += sum(token.type == tokenize.COMMENT for token in tokens)
        for node in ast.walk(ast.parse(text)):
            _count(node, place, found)
            if isinstance(node, ast.ClassDef):
                classes[node.name] += 1
    found.names_twice = sorted(name for name, count in modules.items() if count > 1)
    found.classes_twice = sorted(name for name, count in classes.items() if count > 1)
    return found


def _count(node: ast.AST, place: str, found: Measures) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            where = f"{place}:{node.lineno} {node.name}"
            lines, given = _lines(node), _parameters(node.args)
            if lines > MOST_LINES:
                found.long_functions.append(f"{where}: {lines} lines")
            if given > MOST_PARAMETERS:
                found.many_parameters.append(f"{where}: {given}")
        case ast.ClassDef():
            kinds = ast.FunctionDef | ast.AsyncFunctionDef
            methods = sum(isinstance(part, kinds) for part in node.body)
            if methods > MOST_METHODS:
                where = f"{place}:{node.lineno} {node.name}"
                found.wide_classes.append(f"{where}: {methods} methods")
        case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts) | ast.Tuple(elts)):
            found.exported += len(elts)


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return whole
    docstring = function.body[0]
    return whole - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def _parameters(arguments: ast.arguments) -> int:
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    named = sum(name not in ("self", "cls") for name in names)
    return named + (arguments.vararg is not None) + (arguments.kwarg is not None)


def main() -> None:
    """Prints the measures of ``src``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--list", action="store_true", help="name each of them")
    listed = parser.parse_args().list
    found = measure(Path(__file__).parents[1] / "src" / "saln")
    print(f"lines in src                        {found.lines}")
    print(f"lines with a comment                {found.comment_share:.1%}")
    print(f"names in all __all__                {found.exported}")
    for title, items in (
        (f"functions above {MOST_LINES} lines            ", found.long_functions),
        (f"functions with above {MOST_PARAMETERS} parameters   ", found.many_parameters),
        (f"classes with above {MOST_METHODS} methods       ", found.wide_classes),
        ("names that two modules have         ", found.names_twice),
        ("names that two classes have         ", found.classes_twice),
    ):
        print(f"{title}{len(items)}")
        if listed:
            print("".join(f"    {item}\n" for item in items), end="")


if __name__ == "__main__":
    main()
