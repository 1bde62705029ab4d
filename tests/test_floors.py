"""Imports go down only, which import-linter holds; this holds it for names in strings: children and lazy imports."""

import ast
import re
from pathlib import Path

import pytest

from edge_sdk.target import target_names

ROOT = Path(__file__).parents[1]
FLOORS = {
    "edge_sdk": 1,
    "edge_quantize": 2,
    "edge_targets": 3,
    "edge_benchmarks": 4,
    "peers": 5,
    "edge_training": 5,
}
FOLDERS = {
    "edge_sdk": "edge_sdk",
    "edge_quantize": "quantize/edge_quantize",
    "edge_targets": "targets/edge_targets",
    "edge_benchmarks": "benchmarks/edge_benchmarks",
    "peers": "benchmarks/peers",
    "edge_training": "training/edge_training",
}
SANCTIONED = {
    ("edge_sdk/target.py", "edge_targets"): "an engine, found by listing the folder",
    ("edge_sdk/profile.py", "edge_targets"): "the boards' TOML files lie beside the engines",
    ("edge_sdk/cli.py", "edge_quantize.cli"): "verbs of the floors above",
    ("edge_sdk/cli.py", "edge_targets.cli"): "verbs of the floors above",
    ("edge_sdk/cli.py", "edge_benchmarks.cli"): "verbs of the floors above",
    ("edge_sdk/host.py", "edge_quantize.build"): "edge_sdk.build",
    ("edge_sdk/host.py", "edge_benchmarks.scenarios"): "edge_sdk.bench",
}
"""File and name to why a floor may name a higher one."""
_NAME = re.compile(
    r"(edge_sdk|edge_quantize|edge_targets|edge_benchmarks|edge_training|peers)(\.[a-z_0-9.]+)?"
)


def names_above(package):
    """(file, name) of every string in a package that names a module of a higher floor, docstrings left out."""
    found = set()
    for path in sorted((ROOT / FOLDERS[package]).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documents = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
            if isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
                match = _NAME.fullmatch(node.value)
                if match and FLOORS[match[1]] > FLOORS[package]:
                    found.add((path.relative_to(ROOT).as_posix(), node.value))
    return found


@pytest.mark.parametrize("package", FOLDERS)
def test_no_floor_names_a_higher_one_but_where_it_is_sanctioned(package):
    assert names_above(package) <= set(SANCTIONED)


def test_what_is_sanctioned_is_used():
    used = set().union(*(names_above(package) for package in FOLDERS))
    assert used == set(SANCTIONED)


def imports_of(path, modules):
    """Those of ``modules`` that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules or {node.module}
    return found & modules


@pytest.mark.parametrize("package", FOLDERS)
def test_no_modules_import_each_other_in_a_circle_not_even_inside_functions(package):
    files = {}
    for path in (ROOT / FOLDERS[package]).rglob("*.py"):
        parts = path.relative_to((ROOT / FOLDERS[package]).parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    ahead = {name: imports_of(path, set(files)) - {name} for name, path in files.items()}
    # What imports nothing more is in no circle: take it away until nothing can be taken.
    while free := {name for name, needs in ahead.items() if not needs}:
        ahead = {name: needs - free for name, needs in ahead.items() if name not in free}
    assert not ahead


@pytest.mark.parametrize("name", target_names())
def test_engines_know_nothing_of_each_other(name):
    others = {f"edge_targets.{other}" for other in target_names() if other != name}
    for path in (ROOT / "targets" / "edge_targets" / name).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            else:
                continue
            assert not {n for n in imported if any(n == o or n.startswith(o + ".") for o in others)}, path
