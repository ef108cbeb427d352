"""What ours is measured against: popularity, alternating least squares, item-item neighbours. Knows no learner model.

The latter two are those of the package `implicit`; which settings they get is chosen on learners set apart for it.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse

from engine.types import F4


class Ranker(Protocol):
    """Scores every row for a history."""

    def scores(self, histories: "sparse.csr_matrix") -> F4:
        """Return (cases, rows) scores for (cases, rows) counts of practice."""
        ...


Fit = Callable[["sparse.csr_matrix"], Ranker]


class Rival(NamedTuple):
    """A way of ranking and the settings to choose from."""

    name: str
    settings: list[tuple[str, Fit]]
    """(description, what fits to (learners, rows) counts)."""


WEIGHTS: dict[str, Callable[[Any], Any]] = {"once": np.sign, "log": np.log1p}
"""How often-practised rows count: once, or by the logarithm of one more than how often."""


class Popularity:
    """Rows by how many learners practised them."""

    def __init__(self, counts: "sparse.csr_matrix") -> None:
        self._learners = np.asarray((counts > 0).sum(axis=0), np.float32).ravel()

    def scores(self, histories: "sparse.csr_matrix") -> F4:
        """The same for everybody."""
        return np.repeat(self._learners[np.newaxis], histories.shape[0], axis=0)


class LeastSquares:
    """`implicit`'s AlternatingLeastSquares (Hu, Koren and Volinsky 2008); a history's factor is recalculated."""

    def __init__(
        self, counts: "sparse.csr_matrix", weight: str, factors: int, regularisation: float, alpha: float
    ) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self._weight = WEIGHTS[weight]
        self._model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            alpha=alpha,
            iterations=15,
            num_threads=1,
            random_state=0,
        )
        self._model.fit(_weighted(counts, self._weight), show_progress=False)

    def scores(self, histories: "sparse.csr_matrix") -> F4:
        """Inner products, as its own `recommend` ranks."""
        users = self._model.recalculate_user(
            np.arange(histories.shape[0]), _weighted(histories, self._weight)
        )
        return np.asarray(users @ self._model.item_factors.T, np.float32)


class ItemItem:
    """`implicit`'s item-item neighbours: cosine, TF-IDF or BM25."""

    def __init__(self, counts: "sparse.csr_matrix", weight: str, kind: str, neighbours: int) -> None:
        from implicit import nearest_neighbours

        self._weight = WEIGHTS[weight]
        model = getattr(nearest_neighbours, f"{kind}Recommender")(K=neighbours, num_threads=1)
        with warnings.catch_warnings(action="ignore"):  # it warns of what it converts itself
            model.fit(_weighted(counts, self._weight), show_progress=False)
        self._similarity = model.similarity

    def scores(self, histories: "sparse.csr_matrix") -> F4:
        """Sums of similarities to the history, as its own `recommend` ranks."""
        return np.asarray((_weighted(histories, self._weight) @ self._similarity).todense(), np.float32)


def rivals(*, quick: bool, questions: bool) -> list[Rival]:
    """Return the rivals with the grid to choose their settings from; a small grid for questions, which are many."""
    weights = ["log"] if quick or questions else list(WEIGHTS)
    factors = [32] if quick else [64, 128] if questions else [16, 32, 64]
    strengths = [(10.0, 10.0)] if quick else [(r, a) for r in (0.1, 1.0, 10.0) for a in (1.0, 10.0, 40.0)]
    if questions and not quick:
        strengths = [(1.0, 10.0), (10.0, 1.0), (10.0, 10.0), (10.0, 40.0)]
    kinds = ["BM25"] if quick else ["Cosine", "TFIDF", "BM25"]
    neighbours = [20] if quick else [20, 100]
    return [
        Rival("popularity", [("", Popularity)]),
        Rival(
            "implicit_als",
            [
                (f"{w}, {f} factors, regularisation {r:g}, alpha {a:g}", _least_squares(w, f, r, a))
                for w in weights
                for f in factors
                for r, a in strengths
            ],
        ),
        Rival(
            "item_item",
            [
                (f"{kind}, {w}, {count} neighbours", _item_item(w, kind, count))
                for w in weights
                for kind in kinds
                for count in neighbours
            ],
        ),
    ]


def chosen(rival: Rival, value: Callable[[Fit], float]) -> tuple[str, Fit]:
    """Return the (description, fit) whose value on the learners set apart is the largest."""
    if len(rival.settings) == 1:
        return rival.settings[0]
    return max(_valued(rival.settings, value), key=lambda found: found[0])[1]


def _valued(
    settings: Iterable[tuple[str, Fit]], value: Callable[[Fit], float]
) -> list[tuple[float, tuple[str, Fit]]]:
    return [(value(setting[1]), setting) for setting in settings]


def _least_squares(weight: str, factors: int, regularisation: float, alpha: float) -> Fit:
    return lambda counts: LeastSquares(counts, weight, factors, regularisation, alpha)


def _item_item(weight: str, kind: str, neighbours: int) -> Fit:
    return lambda counts: ItemItem(counts, weight, kind, neighbours)


def _weighted(counts: "sparse.csr_matrix", weight: Callable[[Any], Any]) -> "sparse.csr_matrix":
    matrix = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    matrix.data = np.asarray(weight(matrix.data), np.float32)
    return matrix
