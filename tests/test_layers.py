"""The shape of the code: which module may import which, and what every public name owes its reader.

Read from the sources with `ast`, so that an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Inside storage, a layer imports those before it and itself, never one after it.
LAYERS = [
    ["storage.errors"],
    ["storage.model"],
    ["storage.tree"],
    ["storage.disk"],
    ["storage.pools"],
    ["storage.config"],
    ["storage.mounts"],
    ["storage.mergers"],
    ["storage.stores"],
    ["storage.home"],
    ["storage.snapshot", "storage.working"],
    ["storage.entries"],
    ["storage.worktree", "storage.restoring", "storage.merging"],
    ["storage.references"],
    ["storage.engine"],
    ["storage.maintenance"],
    ["storage.labels"],
    ["storage.session"],
    ["storage.html"],
    ["storage.reprs"],
    ["storage.notebook"],
    ["storage.metadata"],
    ["storage.stacking", "storage.filling", "storage.widening"],
    [
        "storage.dataset_views",
        "storage.dataset_reader",
        "storage.dataset_writer",
        "storage.nested_datasets",
        "storage.together",
        "storage.datasets",
    ],
    ["storage.diffing"],
    ["storage.planting"],
    ["storage.formats"],
    ["storage.importing", "storage.exporting", "storage.external"],
    ["storage.reports", "storage.rows"],
    ["storage.file_reader", "storage.file_samples"],
    ["storage.checkout", "storage.files"],
    ["storage.repository"],
    ["storage.loaders", "storage.bulk", "storage.places"],
    ["storage.treants", "storage.pods"],
    ["storage"],  # the package itself names what users import
]

# Against the order, each with its reason.
EXCEPTIONS: set[tuple[str, str]] = set()

TOP_LEVEL = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "fusefs",
    "pyproject.toml",
    "scripts",
    "storage",
    "tests",
}

# How many modules may import what binds us to the outside.
BOUND = {"lmdb": 1, "pyfuse3": 2, "trio": 3}


def module_name(file: Path) -> str:
    """`storage/model/names.py` is `storage.model.names`, `storage/__init__.py` is `storage`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules of the product, by name."""
    files = [file for package in ("storage", "fusefs") for file in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(file): ast.parse(file.read_text(), str(file)) for file in files}


def imports(name: str) -> Iterator[str]:
    """Every module that the module `name` imports, wherever the statement stands; `from a import b` is a.b
    where that is a module."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively, line {node.lineno}: name the module in full"
            source = node.module or ""
            for alias in node.names:
                below = f"{source}.{alias.name}"
                yield below if below in modules() else source


def layer(module: str) -> int:
    """The place of a module of storage in LAYERS."""
    for number, names in enumerate(LAYERS):
        if any(module == name or (name != "storage" and module.startswith(f"{name}.")) for name in names):
            return number
    pytest.fail(f"{module} has no place in LAYERS")


def test_storage_imports_point_one_way():
    wrong = [
        f"{name} imports {imported}"
        for name in modules()
        if name.startswith("storage")
        for imported in imports(name)
        if imported.split(".")[0] == "storage" and layer(imported) > layer(name) and (name, imported) not in EXCEPTIONS
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_to_the_order_is_still_needed():
    assert all(imported in set(imports(name)) for name, imported in EXCEPTIONS)


def test_storage_knows_nothing_of_the_mount():
    above = {"fusefs", "trio", "pyfuse3", "click"}
    wrong = [
        f"{name} imports {imported}"
        for name in modules()
        if name.startswith("storage")
        for imported in imports(name)
        if imported.split(".")[0] in above
    ]
    assert not wrong, "\n".join(wrong)


def test_the_mount_knows_nothing_of_the_command_line():
    wrong = [
        name
        for name in modules()
        if name.startswith("fusefs") and not name.startswith("fusefs.cli")
        if any(imported.startswith("fusefs.cli") or imported == "click" for imported in imports(name))
    ]
    assert not wrong, f"these import the command line: {wrong}"


@pytest.mark.parametrize("library, most", BOUND.items())
def test_libraries_that_bind_are_imported_in_few_modules(library, most):
    users = [name for name in modules() if library in {imported.split(".")[0] for imported in imports(name)}]
    assert 1 <= len(users) <= most, f"{library} is imported in {users}"


def test_only_the_command_line_reads_the_environment():
    def reads(tree: ast.Module) -> bool:
        return any(
            (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
            or (isinstance(node, ast.alias) and node.name in ("environ", "environb", "getenv"))
            for node in ast.walk(tree)
        )

    readers = [name for name, tree in modules().items() if reads(tree)]
    assert all(name.startswith("fusefs.cli") for name in readers), readers


def tracked() -> list[str]:
    """Files that git knows or would take, from the top."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return [name for name in done.stdout.split("\0") if name]


def test_the_top_level_stays_as_agreed():
    names = {name.split("/")[0] for name in tracked()}
    odd = {name for name in names - TOP_LEVEL if not name.startswith(".")}
    assert not odd, f"the top level has more than the agreed names: {sorted(odd)}"
    assert names >= TOP_LEVEL, f"missing at the top: {sorted(TOP_LEVEL - names)}"


def undocumented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The module, and the classes and functions without a docstring, wherever they stand, whose names begin with no
    underscore; overloads share the one that follows.
    """
    if not ast.get_docstring(tree):
        yield 1, "the module"
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        overloaded = any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
        if not ast.get_docstring(node) and not overloaded:
            yield node.lineno, node.name


@pytest.mark.parametrize("package", ["storage", "fusefs"])
def test_every_public_name_is_documented(package):
    wrong = [
        f"{name}:{line} {what}"
        for name, tree in modules().items()
        if name.split(".")[0] == package
        for line, what in undocumented(tree)
    ]
    assert not wrong, "\n".join(wrong)


def broad_handlers(tree: ast.Module) -> Iterator[int]:
    """Lines that catch everything and keep it; cleaning up and raising again is no such thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type
            broad = caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))
            raised = any(isinstance(below, ast.Raise) and below.exc is None for below in ast.walk(node))
            if broad and not raised:
                yield node.lineno


def test_only_two_places_catch_everything():
    """The errno boundary and the daemon's last resort."""
    found = [f"{name}:{line}" for name, tree in modules().items() for line in broad_handlers(tree)]
    assert len(found) <= 2, found
