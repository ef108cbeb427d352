"""Nearest vectors by inner product, through FAISS. Knows rows and vectors, not what they stand for.

Exact search below `EXACT_BELOW` vectors, an inverted file above, whose probes are raised at build time until
it finds what exact search finds (`TARGET_RECALL`, measured on a sample of the vectors' own kind of queries).
`bench/candidates.py` holds the sweep behind these choices.
"""

import json
import struct
from typing import Any, Final

import faiss
import numpy as np

from engine.learner.score import read_only
from engine.probing import WIDTH, InvertedLists, probe
from engine.types import F4, I8, NO_ROW, U4

EXACT_BELOW = 10_000
"""Vectors up to which exact search is used: there it costs about what the inverted file costs."""

WORTH_PROBING = 0.25
"""Share of the lists above which exact search is used after all: it reads one long list faster than many short ones."""

TARGET_RECALL = 0.97
"""Share of the exact nearest `SAMPLE_DEPTH` that the inverted file must find; above the bar of .95 by a
margin."""

SAMPLE_QUERIES = 256
SAMPLE_DEPTH = 100

_HEADER: Final = struct.Struct("<4sI")
_MAGIC = b"GNI1"

# Workers are processes, one a core: threads inside a search would only take turns with the other workers.
faiss.omp_set_num_threads(1)


class NeighbourIndex:
    """Rows whose vectors have the largest inner product with a query. Immutable; safe to share between
    threads.
    """

    __slots__ = ("_index", "_lists", "_rows", "kind", "probes", "recall")

    def __init__(self, index: "faiss.Index", rows: U4, kind: str, probes: int, recall: float) -> None:
        self._index = index
        self._lists: InvertedLists | None = None
        self._rows = rows
        self.kind = kind
        """`exact` or `ivf`."""
        self.probes = probes
        """Lists of the inverted file that a search reads; 0 when exact."""
        self.recall = recall
        """Share of the exact neighbours found on the sample at build time."""

    def __len__(self) -> int:
        """Number of vectors held."""
        return int(self._rows.shape[0])

    @property
    def width(self) -> int:
        """Components of a vector."""
        return int(self._index.d)

    def search(self, queries: F4, count: int) -> tuple[U4, F4]:
        """Return (rows, inner products), both (n, k), best first, for queries (n, width); k = min(count,
        len).

        Fewer than k may be found by an inverted file; the rest are NO_ROW with −inf. The same index and
        queries give the same answer on every call.
        """
        count = min(count, len(self))
        if count == 0:
            return np.empty((queries.shape[0], 0), np.uint32), np.empty((queries.shape[0], 0), np.float32)
        products, found = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        missing = found < 0
        rows = np.where(missing, np.uint32(NO_ROW), self._rows[found])
        return rows, np.where(missing, np.float32(-np.inf), products)

    def nearest(self, query: F4, count: int) -> U4:
        """Return rows (≤ count,) best first for one query (width,): `search` for a hot path, which may take one row
        for another that is as near to within a step of `engine.probing`.
        """
        count = min(count, len(self))
        if count == 0:
            return np.empty(0, np.uint32)
        if self.width == WIDTH:
            room = np.empty(count, np.uint32)
            return room[: probe(self.lists, read_only(query), max(self.probes, 1), room)]
        found = self._index.search(query[np.newaxis], count)[1][0]
        rows: U4 = self._rows[found[found >= 0] if self.probes else found]
        return rows

    @property
    def lists(self) -> InvertedLists:
        """The vectors as `engine.probing.probe` reads them: one list when the index is exact; built when first asked
        for. No lists when vectors are of another width than those.
        """
        if self._lists is None:
            if self.width != WIDTH or len(self) == 0:
                self._lists = InvertedLists.none()
            elif self.probes:
                self._lists = _inverted(self._index, self._rows)
            else:
                vectors = self._index.reconstruct_n(0, len(self))
                self._lists = InvertedLists.of(vectors[:1], np.array([0, len(self)]), self._rows, vectors)
        return self._lists

    def to_bytes(self) -> bytes:
        """Return the index as bytes that `from_bytes` reads."""
        facts = json.dumps({"kind": self.kind, "probes": self.probes, "recall": self.recall}).encode()
        body = faiss.serialize_index(self._index).tobytes()
        return b"".join(
            (
                _HEADER.pack(_MAGIC, len(facts)),
                facts,
                struct.pack("<Q", len(self)),
                self._rows.tobytes(),
                body,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "NeighbourIndex":
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: the bytes are not an index of this version.
        """
        if len(data) < _HEADER.size or _HEADER.unpack_from(data)[0] != _MAGIC:
            raise ValueError("not a neighbour index of a version known here")
        start = _HEADER.size
        end = start + _HEADER.unpack_from(data)[1]
        facts = json.loads(data[start:end])
        (count,) = struct.unpack_from("<Q", data, end)
        rows = np.frombuffer(data, np.uint32, count, end + 8).copy()
        index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=end + 8 + 4 * count))
        return cls(index, rows, facts["kind"], facts["probes"], facts["recall"])


def build_index(
    vectors: F4, *, queries: F4 | None = None, exact_below: int = EXACT_BELOW, lists: int = 0
) -> NeighbourIndex:
    """Index the rows of `vectors` (n, width) that are not zero.

    `queries` (m, width) are like those to come, for choosing how many lists to probe; the vectors themselves
    when not given. `lists` overrides the number of lists, 4·√n, of the inverted file. Deterministic.
    """
    rows = np.flatnonzero(np.any(vectors != 0.0, axis=1)).astype(np.uint32)
    held = np.ascontiguousarray(vectors[rows], np.float32)
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(held)
    if rows.shape[0] < max(exact_below, 1):
        return NeighbourIndex(exact, rows, "exact", 0, 1.0)
    lists = lists or int(4 * np.sqrt(rows.shape[0]))
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(held.shape[1]), held.shape[1], lists, faiss.METRIC_INNER_PRODUCT
    )
    # Placing the lists by a sample is enough: recall is measured below, whatever they are.
    index.cp.niter = 10
    index.cp.max_points_per_centroid = 64
    index.cp.min_points_per_centroid = 1
    index.train(held)
    index.add(held)
    # Learners lie between items; a sample of item pairs stands in when none are given.
    if queries is None:
        first, second = _sample(held.shape[0]), _sample(held.shape[0])[::-1]
        queries = held[first] + held[second]
    sample = np.ascontiguousarray(queries[_sample(queries.shape[0])], np.float32)
    wanted = exact.search(sample, min(SAMPLE_DEPTH, held.shape[0]))[1]
    probes, recall = 1, 0.0
    while recall < TARGET_RECALL and probes <= lists:
        index.nprobe = probes
        recall = recall_of(index.search(sample, wanted.shape[1])[1], wanted)
        chosen, probes = probes, max(probes + 1, probes * 5 // 4)
    if chosen > WORTH_PROBING * lists:
        return NeighbourIndex(exact, rows, "exact", 0, 1.0)
    return NeighbourIndex(index, rows, "ivf", chosen, recall)


def _inverted(index: "faiss.Index", rows: U4) -> InvertedLists:
    """Return what an inverted file of FAISS holds; `rows` (n,) are what its numbers stand for."""
    file: Any = faiss.extract_index_ivf(index)
    lists, width = file.nlist, file.d
    sizes = [file.invlists.list_size(number) for number in range(lists)]
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    vectors, held = np.empty((offsets[-1], width), np.float32), np.empty(offsets[-1], np.uint32)
    for number, size in enumerate(sizes):
        if size:
            own = slice(offsets[number], offsets[number + 1])
            codes = faiss.rev_swig_ptr(file.invlists.get_codes(number), size * file.code_size)
            vectors[own] = codes.view(np.float32).reshape(size, width)
            held[own] = rows[faiss.rev_swig_ptr(file.invlists.get_ids(number), size)]
    return InvertedLists.of(file.quantizer.reconstruct_n(0, lists), offsets, held, vectors)


def recall_of(found: I8, wanted: I8) -> float:
    """Share of the entries of `wanted` (n, k) that are in the same row of `found` (n, k)."""
    hits = sum(np.intersect1d(a, b).size for a, b in zip(found, wanted, strict=True))
    return float(hits / max(wanted.size, 1))


def _sample(size: int) -> I8:
    """Return up to SAMPLE_QUERIES indices spread evenly over range(size)."""
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLE_QUERIES)).astype(np.int64))
