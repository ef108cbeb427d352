"""Files of the import format as chunks of cells, CSV or JSONL. Knows columns, not what they mean."""

import csv
import difflib
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader, StringIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from server.data_tables import Table, Value, cell_of, text_of
from server.errors import printable
from store.home import sync_directory

CHUNK_ROWS = 65_536
"""Rows handed on together: what bounds the memory of an import."""
MOST_LINE_BYTES = 1 << 20
"""A longer line is taken for damage, so that a file without line breaks cannot fill the memory."""
_BLOCK_BYTES = 1 << 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
EXTENSIONS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
_GZIP_MAGIC = b"\x1f\x8b"
_NOTE_PREFIX = "_"
"""Columns that begin so are notes, which rejects files add: passed over without a word."""


class Problem(NamedTuple):
    """One thing wrong with one row."""

    file: str
    line: int
    column: str
    """Empty when the row as a whole is at fault."""
    value: str
    rule: str
    """The rest of a sentence: what is allowed."""

    def __str__(self) -> str:
        """Where, what, and what is allowed."""
        what = f"{self.column} is {printable(self.value)!r}: " if self.column else ""
        return f"{self.file}:{self.line}: {what}{self.rule}"


class DataFileError(Exception):
    """A file that cannot be read on; names it and, where known, the line."""

    def __init__(self, path: Path, problem: str, line: int = 0) -> None:
        self.path = path
        self.line = line
        super().__init__(f"{path}{f':{line}' if line else ''}: {problem}")


@dataclass(slots=True)
class Chunk:
    """Rows of one file, by column. Every cell is text, empty where nothing was said."""

    file: str
    columns: tuple[str, ...]
    lines: list[int]
    """Line on which each row begins."""
    cells: list[Sequence[str]]
    """For each of `columns`, the cells of all rows."""
    rejected: list[tuple[Problem, dict[str, str]]] = field(default_factory=list)
    """Rows that could not be taken apart, which `lines` and `cells` leave out."""
    ignored: tuple[str, ...] = ()
    """Columns met so far that the format does not know."""
    bytes_read: int = 0
    """Bytes of the file, as it lies on disk, read up to here."""

    def column(self, name: str) -> Sequence[str] | None:
        """Cells of a column, None when the file does not have it."""
        return self.cells[self.columns.index(name)] if name in self.columns else None

    def row(self, index: int) -> dict[str, str]:
        """One row by column name."""
        return {name: cells[index] for name, cells in zip(self.columns, self.cells, strict=True)}


def find_table(directory: Path, table: Table) -> Path | None:
    """The file of a kind in a directory, None when there is none. DataFileError when there are several."""
    found = [path for path in (directory / (table.name + end) for end in EXTENSIONS) if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise DataFileError(directory, f"holds {names}: leave one, or name the file")
    return found[0] if found else None


def read_chunks(path: Path, table: Table, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Read a file in chunks; the memory used depends on `chunk_rows` alone.

    Raises:
        DataFileError: the file cannot be opened, is no CSV or JSONL of this table, or ends early.
    """
    read = _read_jsonl if _is_jsonl(path) else _read_csv
    line = [0]
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:
            for chunk in read(path, stream, table, chunk_rows, line):
                chunk.bytes_read = raw.tell()
                yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(path, f"the gzip data is damaged or cut short ({error})", line[0]) from error
    except OSError as error:
        raise DataFileError(path, f"cannot be read: {error.strerror or error}") from error


def chunk_of(table: Table, rows: Iterable[Mapping[str, str]], *, name: str) -> Chunk:
    """Rows at hand, as a file of that name would give them."""
    kept = [[row.get(column) or "" for column in table.columns] for row in rows]
    return _chunk(name, table.columns, list(range(2, len(kept) + 2)), kept)


def _is_jsonl(path: Path) -> bool:
    if not path.name.endswith(EXTENSIONS):
        raise DataFileError(path, f"has no known ending; must end in one of {', '.join(EXTENSIONS)}")
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _unpacked(raw: BufferedReader) -> IO[bytes]:
    packed = raw.peek(2)[:2] == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(raw)) if packed else raw


def _read_csv(path: Path, stream: IO[bytes], table: Table, chunk_rows: int, at: list[int]) -> Iterator[Chunk]:
    reader = csv.reader(_text_lines(path, stream, at), strict=True)
    try:
        header = next(reader)
    except StopIteration:
        raise DataFileError(path, f"is empty; needs a header with {', '.join(table.required)}") from None
    except csv.Error as error:
        raise DataFileError(path, f"has no header that can be read: {error}", 1) from error
    kept, ignored = _check_header(path, table, header)
    more = True
    while more:
        chunk, more = _csv_rows(path, reader, header, chunk_rows)
        chunk.columns, chunk.ignored = tuple(header[index] for index in kept), ignored
        chunk.cells = [chunk.cells[index] for index in kept]
        if chunk.lines or chunk.rejected:
            yield chunk


def _csv_rows(path: Path, reader: Any, header: list[str], limit: int) -> tuple[Chunk, bool]:
    """Up to `limit` rows, all columns; and whether there may be more."""
    width = len(header)
    rows: list[list[str]] = []
    lines: list[int] = []
    rejected: list[tuple[Problem, dict[str, str]]] = []
    before = reader.line_num
    while len(rows) + len(rejected) < limit:
        try:
            for row in reader:
                if len(row) == width:
                    rows.append(row)
                    lines.append(before + 1)
                elif row:
                    rule = f"the row has {len(row)} cells, the header {width}"
                    cells = dict(zip(header, row, strict=False))
                    rejected.append((Problem(path.name, before + 1, "", "", rule), cells))
                before = reader.line_num
                if len(rows) + len(rejected) >= limit:
                    break
            else:
                return _chunk(path.name, tuple(header), lines, rows, rejected), False
        except csv.Error as error:
            problem = Problem(path.name, before + 1, "", "", f"the row cannot be taken apart: {error}")
            rejected.append((problem, {}))
            before = reader.line_num
    return _chunk(path.name, tuple(header), lines, rows, rejected), True


def _read_jsonl(
    path: Path, stream: IO[bytes], table: Table, chunk_rows: int, at: list[int]
) -> Iterator[Chunk]:
    decode = msgspec.json.Decoder().decode
    columns = table.columns
    ignored: dict[str, None] = {}
    rows: list[list[str]] = []
    lines: list[int] = []
    rejected: list[tuple[Problem, dict[str, str]]] = []
    lines_of_all = chain.from_iterable(
        block.removesuffix(b"\n").split(b"\n") for block in _blocks(path, stream, at)
    )
    for number, line in enumerate(lines_of_all, 1):
        text = line.strip()
        if not text:
            continue
        try:
            entry = decode(text)
            if not isinstance(entry, dict):
                raise TypeError("the line is no JSON object")
            rows.append([cell_of(entry.get(name)) for name in columns])
            lines.append(number)
            ignored.update(dict.fromkeys(entry.keys() - columns))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
            rule = f"the line cannot be taken apart: {error}"
            rejected.append((Problem(path.name, number, "", "", rule), {}))
        if len(rows) + len(rejected) >= chunk_rows:
            yield _chunk(path.name, columns, lines, rows, rejected, _unknown(ignored))
            rows, lines, rejected = [], [], []
    if rows or rejected:
        yield _chunk(path.name, columns, lines, rows, rejected, _unknown(ignored))


def _blocks(path: Path, stream: IO[bytes], at: list[int]) -> Iterator[bytes]:
    """The file in blocks of whole lines, those handed out counted in `at[0]`; a line without end is refused."""
    held = stream.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while held:
        block = stream.read(_BLOCK_BYTES)
        end = held.rfind(b"\n") + 1
        if block and end == 0:
            if len(held) > MOST_LINE_BYTES:
                raise DataFileError(path, f"the line is longer than {MOST_LINE_BYTES} bytes", at[0] + 1)
            held += block
            continue
        whole, held = (held[:end], held[end:] + block) if block else (held, b"")
        at[0] += whole.count(b"\n")
        yield whole


def _text_lines(path: Path, stream: IO[bytes], at: list[int]) -> Iterator[str]:
    """Lines with their ends, for the csv module, which joins those that a quoted cell spans."""
    for block in _blocks(path, stream, at):
        # Bytes that are no UTF-8 become lone surrogates, so that the row that holds them can be named.
        yield from StringIO(block.decode("utf-8", "surrogateescape"), newline="\n")


def _chunk(
    file: str,
    columns: tuple[str, ...],
    lines: list[int],
    rows: list[list[str]],
    rejected: list[tuple[Problem, dict[str, str]]] | None = None,
    ignored: tuple[str, ...] = (),
) -> Chunk:
    """Rows turned into columns; those that hold what is no Unicode text are rejected."""
    rejected = rejected if rejected is not None else []
    if rows and not _encodable("".join(map("".join, rows))):
        kept = []
        for index, row in enumerate(rows):
            bad = next((name for name, cell in zip(columns, row, strict=True) if not _encodable(cell)), None)
            if bad is None:
                kept.append(index)
            else:
                shown = [cell.encode(errors="replace").decode() for cell in row]
                problem = Problem(file, lines[index], bad, shown[columns.index(bad)], "must be UTF-8 text")
                rejected.append((problem, dict(zip(columns, shown, strict=True))))
        rows, lines = [rows[index] for index in kept], [lines[index] for index in kept]
    cells: list[Sequence[str]] = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return Chunk(file, columns, lines, cells, rejected, ignored)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_header(path: Path, table: Table, header: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """(positions of the columns the format knows, names it does not)."""
    for name in table.required:
        if name not in header:
            close = difflib.get_close_matches(name, header, n=1)
            hint = f" (is it {printable(close[0])}?)" if close else ""
            wanted = ", ".join(table.required)
            problem = f"column {name} is missing{hint}; a file of {table.name} needs {wanted}"
            raise DataFileError(path, problem, 1)
    repeated = next((name for name in table.columns if header.count(name) > 1), None)
    if repeated is not None:
        raise DataFileError(path, f"column {repeated} is there more than once", 1)
    kept = [index for index, name in enumerate(header) if name in table.columns]
    return kept, _unknown(name for name in header if name not in table.columns)


def _unknown(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not name.startswith(_NOTE_PREFIX))


class TableWriter:
    """Rows into a file of the import format; CSV or JSONL, packed or not, by the file's name."""

    def __init__(self, stream: IO[str], columns: Sequence[str], *, jsonl: bool) -> None:
        """Write to `stream`; see `written` for files."""
        self._stream = stream
        self._columns = tuple(columns)
        self._csv = None if jsonl else csv.writer(stream, lineterminator="\n")
        if self._csv is not None:
            self._csv.writerow(self._columns)

    def write(self, row: Mapping[str, Value]) -> None:
        """Add a row; columns it does not name are left empty."""
        if self._csv is None:
            filled = {name: row[name] for name in self._columns if row.get(name) not in (None, "", [], {})}
            self._stream.write(json.dumps(filled, ensure_ascii=False) + "\n")
        else:
            self._csv.writerow([text_of(row.get(name)) for name in self._columns])


@contextmanager
def written(path: Path, columns: Sequence[str]) -> Iterator[TableWriter]:
    """A writer whose file appears under its name only when the body ended without an error, whole and synced."""
    jsonl = _is_jsonl(path)
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as raw:
            packed = path.name.endswith(".gz")
            # No time stamp inside, so that equal content gives equal files.
            stream = gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw
            with TextIOWrapper(stream, encoding="utf-8", newline="") as text:
                yield TableWriter(text, columns, jsonl=jsonl)
                text.flush()
                if packed:
                    stream.close()
                raw.flush()
                os.fsync(raw.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
