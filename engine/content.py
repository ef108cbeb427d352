"""Where questions lie in content space, from their text, tags and concepts. Knows nothing of learners.

Two spaces of the same width: one that works from the first minute (hashed words under a seeded projection),
and one trained on a catalogue's own words (TF-IDF and truncated SVD). Vectors have unit length, so a dot
product is a cosine.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from engine.types import F4, F8, Concept, Question

WIDTH = 64
"""Components of a content vector."""

CONCEPT_SHARE = 2.0
"""Length of a question's concept part against its text part of length 1: what is practised outweighs the
wording."""

_WORD = re.compile(r"[^\W_]+")


def embed_questions(concepts: Sequence[Concept], questions: Sequence[Question], size: int) -> F4:
    """Return (size, 64) unit vectors by question row; rows without a question, or with nothing to go by, are
    zero.

    A question is the sum of its concepts' vectors (length `CONCEPT_SHARE`) and its own part (length 1): the
    embedding the caller gave, under a seeded random projection when it is not 64 wide, else the TF-IDF
    weighted sum of its words' and tags' vectors. Every word has a fixed vector of random signs taken from its
    hash, so that texts sharing words come close (random projection: Achlioptas 2003) and no vocabulary need
    be learned.
    """
    shelf = {concept.row: index for index, concept in enumerate(concepts)}
    concept_part = _unit(_hashed(_concept_words(concepts)))
    vectors = np.zeros((size, WIDTH), np.float32)
    if not questions:
        return vectors
    own = _unit(_hashed(_question_words(questions)))
    given = [index for index, question in enumerate(questions) if question.embedding]
    for width in sorted({len(questions[index].embedding) for index in given}):
        chosen = [index for index in given if len(questions[index].embedding) == width]
        own[chosen] = _unit(_project(np.array([questions[index].embedding for index in chosen], np.float64)))
    source = np.array(
        [i for i, q in enumerate(questions) for row in q.concept_rows if row in shelf], np.int64
    )
    target = np.array([shelf[row] for q in questions for row in q.concept_rows if row in shelf], np.int64)
    links = sparse.csr_array((np.ones(source.shape[0]), (source, target)), (len(questions), len(concepts)))
    if concepts:
        own += CONCEPT_SHARE * _unit(np.asarray(links @ concept_part))
    vectors[[question.row for question in questions]] = _unit(own)
    return vectors


def train_content(concepts: Sequence[Concept], questions: Sequence[Question], size: int, *, seed: int) -> F4:
    """Return (size, 64) unit vectors by question row from this catalogue's own words.

    TF-IDF over words, tags and concepts, then truncated SVD (latent semantic analysis: Deerwester et al.
    1990). Falls back to `embed_questions` when the catalogue is too small to span the space.
    """
    named = {concept.row: words for concept, words in zip(concepts, _concept_words(concepts), strict=True)}
    texts = [
        [*words, *(word for row in question.concept_rows for word in named.get(row, ()))]
        for question, words in zip(questions, _question_words(questions), strict=True)
    ]
    matrix, _ = _tfidf(texts)
    if min(matrix.shape) <= WIDTH:
        return embed_questions(concepts, questions, size)
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix, k=WIDTH, v0=start)
    turned = (left * values)[:, ::-1]
    turned *= np.where(turned.sum(axis=0) < 0.0, -1.0, 1.0)
    vectors = np.zeros((size, WIDTH), np.float32)
    vectors[[question.row for question in questions]] = _unit(turned)
    return vectors


def _concept_words(concepts: Sequence[Concept]) -> list[list[str]]:
    """Return the words of each concept; its own id, topic and area count as words that no text can hold."""
    return [
        [
            f"\0c{concept.concept_id}",
            f"\0c{concept.concept_id}",
            f"\0t{concept.topic}",
            f"\0a{concept.area}",
            *(f"\0g{tag}" for tag in concept.tags),
            *words(f"{concept.title} {concept.description}"),
        ]
        for concept in concepts
    ]


def _question_words(questions: Sequence[Question]) -> list[list[str]]:
    return [[*words(question.text), *(f"\0g{tag}" for tag in question.tags)] for question in questions]


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, numbers included: letters and digits of any script."""
    return _WORD.findall(text.casefold())


def _tfidf(texts: Iterable[list[str]]) -> tuple["sparse.csr_array[np.float64]", list[str]]:
    """Return (texts, words) weights (1 + ln tf)·ln((1 + n)/(1 + df)) + 1, rows of unit length, and the
    words.
    """
    column: dict[str, int] = {}
    indices: list[int] = []
    offsets = [0]
    for text in texts:
        indices += [column.setdefault(word, len(column)) for word in text]
        offsets.append(len(indices))
    shape = (len(offsets) - 1, len(column))
    counts = sparse.csr_array((np.ones(len(indices)), np.array(indices, np.int64), np.array(offsets)), shape)
    counts.sum_duplicates()
    frequency = np.bincount(counts.indices, minlength=shape[1])
    inverse = np.log((1.0 + shape[0]) / (1.0 + frequency)) + 1.0
    counts.data = (1.0 + np.log(counts.data)) * inverse[counts.indices]
    norms = np.sqrt(
        np.add.reduceat(np.append(counts.data**2, 0.0), np.minimum(counts.indptr[:-1], counts.nnz))
    )
    norms[np.diff(counts.indptr) == 0] = 1.0
    counts.data /= np.repeat(norms, np.diff(counts.indptr))
    return counts, list(column)


def _hashed(texts: list[list[str]]) -> F8:
    matrix, vocabulary = _tfidf(texts)
    signs = np.frombuffer(b"".join(_digest(word) for word in vocabulary), np.uint8)
    projection = np.unpackbits(signs).reshape(-1, WIDTH) * 2.0 - 1.0
    return np.asarray(matrix @ projection)


def _digest(word: str) -> bytes:
    return hashlib.blake2b(
        word.encode("utf-8", "surrogatepass"), digest_size=WIDTH // 8, person=b"genie-content"
    ).digest()


def _project(given: F8) -> F8:
    width = given.shape[1]
    if width == WIDTH:
        return given
    projection: F8 = np.random.default_rng(width).standard_normal((width, WIDTH)) / np.sqrt(WIDTH)
    return np.asarray(given @ projection)


def _unit(vectors: F8) -> F8:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))
