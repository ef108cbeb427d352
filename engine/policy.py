"""Named ways of choosing: weights of terms, sources with their quotas, temperature. Data only; scores
nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.types import F8, I4

TERMS: Final = (
    "zone",
    "gain",
    "retention",
    "readiness",
    "objective",
    "collaborative",
    "content",
    "context",
    "engagement",
    "popularity",
    "repetition",
    "diversity",
)
"""Terms of the score, each in [0, 1]; their order is that of every array of terms. See `engine.scoring`."""

PENALTIES: Final = frozenset({"repetition", "diversity"})
"""Terms that count against a question."""

SIGNS: Final = np.array([-1.0 if term in PENALTIES else 1.0 for term in TERMS])
"""(terms,) −1 for a penalty, 1 otherwise."""

SOURCES: Final = (
    "review",
    "frontier",
    "objective",
    "collaborative",
    "content",
    "exploration",
    "popular",
    "random",
    "start",
    "fill",
)
"""Sources of candidates; source i is bit i of a candidate's mask. See `engine.candidates`.

`start` serves learners without history; `fill` is not for policies: it tops up when the others give too few.
"""

QUOTA_LIMIT = 64
"""Most candidates a policy may ask of one source."""

DEFAULT_TARGET_SUCCESS = 0.85
"""Predicted success aimed at (Wilson et al. 2019, "The eighty five percent rule for optimal learning")."""

_FIELDS = frozenset({"weights", "sources", "temperature", "target_success", "target_reach", "based_on"})


class InvalidPolicy(ValueError):
    """A policy read from configuration is wrong; says which, where, and what was found."""

    def __init__(self, policy: str, field: str, problem: str) -> None:
        self.policy = policy
        self.field = field
        self.problem = problem
        super().__init__(f"policy {policy!r}, {field}: {problem}")


@dataclass(frozen=True, slots=True)
class Policy:
    """A way of choosing, by name. Build it with `make_policy`, which checks it."""

    name: str
    weights: tuple[float, ...]
    """One weight a term, not negative, in the order of `TERMS`; penalties are subtracted."""
    quotas: tuple[int, ...]
    """Most candidates from each source, in the order of `SOURCES`; 0 turns a source off."""
    temperature: float
    """Of the draw, in units of the score: 0 takes the best, a large one draws evenly."""
    target_success: float
    """Predicted success at which `zone` is 1."""
    target_reach: float
    """How far the target may move for one learner, see `engine.target`; 0 when not at all."""
    signed: F8
    """(terms,) weights with the sign of their term."""
    limits: I4
    """(sources,) quotas as an array."""

    def weight(self, term: str) -> float:
        """Return the weight of a term by name."""
        return self.weights[TERMS.index(term)]

    def quota(self, source: str) -> int:
        """Return the quota of a source by name."""
        return self.quotas[SOURCES.index(source)]


def make_policy(
    name: str,
    *,
    weights: Mapping[str, float],
    sources: Mapping[str, int],
    temperature: float = 0.02,
    target_success: float = DEFAULT_TARGET_SUCCESS,
    target_reach: float = 0.0,
) -> Policy:
    """Return a checked policy; terms and sources not named get 0.

    Raises:
        InvalidPolicy: an unknown name or a value out of its bounds.
    """
    if not name or len(name) > 64 or not name.isprintable():
        raise InvalidPolicy(name, "name", "must be 1 to 64 printable characters")
    _known(name, "weights", weights, TERMS)
    _known(name, "sources", sources, SOURCES[:-1])
    for term, weight in weights.items():
        _within(name, f"weights.{term}", weight, 0.0, 10.0)
    for source, quota in sources.items():
        _within(name, f"sources.{source}", quota, 0, QUOTA_LIMIT)
        if quota != int(quota):
            raise InvalidPolicy(name, f"sources.{source}", f"must be a whole number, not {quota!r}")
    if not any(sources.values()):
        raise InvalidPolicy(name, "sources", "at least one source must have a quota above 0")
    _within(name, "temperature", temperature, 0.0, 100.0)
    _within(name, "target_success", target_success, 0.5, 0.99)
    _within(name, "target_reach", target_reach, 0.0, min(target_success - 0.3, 0.99 - target_success))
    by_term = tuple(float(weights.get(term, 0.0)) for term in TERMS)
    quotas = tuple(int(sources.get(source, 0)) for source in SOURCES)
    signed, limits = SIGNS * by_term, np.array(quotas, np.int32)
    signed.flags.writeable = limits.flags.writeable = False
    return Policy(
        name, by_term, quotas, float(temperature), float(target_success), float(target_reach), signed, limits
    )


def load_policies(settings: Mapping[str, Mapping[str, object]] | None = None) -> dict[str, Policy]:
    """Return the built-in policies and those of configuration by name; a configured one replaces a built-in.

    Each entry may hold `weights` (term → number), `sources` (source → quota), `temperature`, `target_success`,
    `target_reach`, and `based_on` (a built-in whose values it starts from; given weights and sources change only those
    they name, and a given target stands still unless a reach is given too).

    Raises:
        InvalidPolicy: naming the policy, the field and the value that is wrong.
    """
    policies = dict(BUILT_IN)
    for name, entry in (settings or {}).items():
        if not isinstance(entry, Mapping):
            raise InvalidPolicy(name, "entry", f"must be a table of settings, not {entry!r}")
        unknown = sorted(set(entry) - _FIELDS)
        if unknown:
            raise InvalidPolicy(name, unknown[0], f"unknown setting; there are {', '.join(sorted(_FIELDS))}")
        base = entry.get("based_on")
        if base is not None and base not in BUILT_IN:
            raise InvalidPolicy(name, "based_on", f"unknown policy {base!r}; there are {', '.join(BUILT_IN)}")
        start = BUILT_IN[str(base)] if base is not None else None
        weights = dict(zip(TERMS, start.weights, strict=True)) if start else {}
        sources: dict[str, float] = dict(zip(SOURCES[:-1], start.quotas[:-1], strict=True)) if start else {}
        weights.update(_numbers(name, "weights", entry.get("weights", {})))
        sources.update(_numbers(name, "sources", entry.get("sources", {})))
        inherited_reach = start.target_reach if start and "target_success" not in entry else 0.0
        policies[name] = make_policy(
            name,
            weights=weights,
            sources=sources,  # type: ignore[arg-type]  # make_policy refuses a quota that is not whole
            temperature=_number(
                name, "temperature", entry.get("temperature", start.temperature if start else 0.02)
            ),
            target_success=_number(
                name,
                "target_success",
                entry.get("target_success", start.target_success if start else DEFAULT_TARGET_SUCCESS),
            ),
            target_reach=_number(name, "target_reach", entry.get("target_reach", inherited_reach)),
        )
    return policies


def _numbers(policy: str, field: str, table: object) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise InvalidPolicy(policy, field, f"must be a table of numbers, not {table!r}")
    return {str(key): _number(policy, f"{field}.{key}", value) for key, value in table.items()}


def _number(policy: str, field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidPolicy(policy, field, f"must be a number, not {value!r}")
    return value


def _known(policy: str, field: str, table: Mapping[str, float], names: tuple[str, ...]) -> None:
    for key in table:
        if key not in names:
            raise InvalidPolicy(policy, f"{field}.{key}", f"unknown name; there are {', '.join(names)}")


def _within(policy: str, field: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidPolicy(policy, field, f"must be from {low} to {high}, not {value!r}")


HYBRID = make_policy(
    "hybrid_v1",
    weights={
        "zone": 0.15,
        "gain": 0.60,
        "retention": 0.03,
        "readiness": 0.02,
        "objective": 0.12,
        "collaborative": 0.02,
        "content": 0.01,
        "context": 0.03,
        "engagement": 0.03,
        "repetition": 0.06,
        "diversity": 0.2,
    },
    sources={
        "review": 32,
        "frontier": 48,
        "objective": 24,
        "collaborative": 24,
        "content": 16,
        "exploration": 16,
        "start": 32,
    },
    temperature=0.012,
    # Simulated classrooms learn about as much from .65 to .75 and stay longest here (docs/recommending.md).
    target_success=0.73,
    target_reach=0.2,
)
"""The default: what raises mastery most, at the right difficulty, before it is forgotten, towards the
goal."""

BUILT_IN: Final[Mapping[str, Policy]] = {
    policy.name: policy
    for policy in (
        HYBRID,
        make_policy(
            "content_based_v1",
            weights={"content": 0.7, "zone": 0.2, "context": 0.1, "repetition": 0.2, "diversity": 0.05},
            sources={"content": 64, "start": 32},
        ),
        make_policy(
            "collaborative_filtering_v2",
            weights={"collaborative": 0.8, "popularity": 0.2, "repetition": 0.2, "diversity": 0.05},
            sources={"collaborative": 64, "popular": 32},
        ),
        make_policy(
            "spaced_repetition_v1",
            weights={"retention": 0.8, "zone": 0.1, "readiness": 0.1, "repetition": 0.1, "diversity": 0.05},
            sources={"review": 64, "frontier": 24, "start": 24},
            temperature=0.01,
        ),
        make_policy(
            "zone_v1",
            weights={"zone": 0.9, "readiness": 0.1, "repetition": 0.2, "diversity": 0.1},
            sources={"frontier": 64, "review": 24, "exploration": 32, "start": 32},
        ),
        make_policy(
            "popularity_v1",
            weights={"popularity": 1.0, "repetition": 0.2},
            sources={"popular": 64},
            temperature=0.0,
        ),
        make_policy("random_v1", weights={}, sources={"random": 64}, temperature=1.0),
    )
}
"""The seven policies that experiments name."""
