"""Files and functions stay small enough to be read at one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "store", "server", "bench", "deploy", "examples", "tests")
FEWER_LINES_OF_FILE = 400
FEWER_LINES_OF_FUNCTION = 70


def sources() -> Iterator[tuple[str, str]]:
    """Every Python file that people write: its name below the root, and its text."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    for path in [*paths, ROOT / "protos" / "generate.py"]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_files_are_short() -> None:
    long = {name: text.count("\n") for name, text in sources() if text.count("\n") >= FEWER_LINES_OF_FILE}
    assert not long


def test_functions_are_short() -> None:
    long = {}
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines >= FEWER_LINES_OF_FUNCTION:
                    long[f"{name} {node.name}"] = lines
    assert not long


def test_the_sources_are_found() -> None:
    names = {name for name, _ in sources()}
    assert len(names) > 300
    assert {"engine/jit.py", "store/api.py", "server/rpc.py", "tests/test_sizes.py"} <= names
