"""Streaming moments of one metric in one arm, exact in any order. Knows nothing of tests or intervals.

A learner contributes one observation: the metric's value, its denominator (1 unless the metric is a
ratio) and a covariate measured before the experiment (0 when there is none). What is kept are sums of
values, products and cubes in fixed point, as whole numbers of any length. Whole numbers neither round
nor cancel, so late, shuffled, repeated-and-withdrawn reports end in the same bits, and a mean of 1e9
costs the variance nothing, which is what raw sums in floating point are rightly feared for. What is
read are the means and the *centred* co-moments, each rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

Observation = tuple[float, float, float]
"""(value, denominator, covariate) of one learner."""

FRACTION_BITS = 60
"""Fixed point keeps this many binary places: every double above 2^-8 in size is held exactly."""

LARGEST = 2.0**40
"""Largest size of a number taken in; keeps every sum within SUM_BYTES for 2^40 learners."""

SUM_BYTES = 48
"""A signed integer this wide holds any of the sums; for records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centred:
    """Means and centred sums of products: `s_ab` is the sum of (a - mean a)(b - mean b) over learners.

    v is the value, d the denominator, x the covariate; `s_vvv` is the third centred sum of the value.
    """

    n: int
    mean_v: float
    mean_d: float
    mean_x: float
    s_vv: float
    s_dd: float
    s_xx: float
    s_vd: float
    s_vx: float
    s_dx: float
    s_vvv: float


@dataclass(frozen=True, slots=True)
class Moments:
    """Count and fixed-point sums of one group of learners. Build with `EMPTY.add` or `Moments.of`."""

    n: int = 0
    v: int = 0
    d: int = 0
    x: int = 0
    vv: int = 0
    dd: int = 0
    xx: int = 0
    vd: int = 0
    vx: int = 0
    dx: int = 0
    vvv: int = 0

    @classmethod
    def of(cls, observations: Iterable[float | Observation]) -> Moments:
        """Moments of many learners; a bare number is a value with denominator 1 and covariate 0.

        Raises ValueError when a number is not finite or larger than LARGEST.
        """
        units = (_unit(*o) if isinstance(o, tuple) else _unit(o, 1.0, 0.0) for o in observations)
        return reduce(Moments.merge, units, EMPTY)

    @classmethod
    def from_sums(cls, *, n: int, total: float, total_of_squares: float) -> Moments:
        """Moments of a plain metric from raw sums, as other systems export them.

        Raises ValueError when n is not positive or no n numbers have these sums.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if not (math.isfinite(total) and math.isfinite(total_of_squares)):
            raise ValueError(f"total and total_of_squares must be finite, got {total}, {total_of_squares}")
        v, vv = _fixed(total), int(math.ldexp(total_of_squares, 2 * FRACTION_BITS))
        if n * vv < v * v:
            bound = total * total / n
            raise ValueError(f"total_of_squares must be at least total²/n = {bound}, got {total_of_squares}")
        one = 1 << FRACTION_BITS
        return cls(n=n, v=v, d=n * one, vv=vv, dd=n * one * one, vd=v * one)

    def add(self, value: float, *, denominator: float = 1.0, covariate: float = 0.0) -> Moments:
        """Put one learner in. Raises ValueError when a number is not finite or above LARGEST."""
        return self.merge(_unit(value, denominator, covariate))

    def remove(self, value: float, *, denominator: float = 1.0, covariate: float = 0.0) -> Moments:
        """Take out one learner who was put in with these numbers: the exact inverse of `add`.

        Raises ValueError when nobody is in, or when these numbers cannot have been among the rest.
        """
        if self.n < 1:
            raise ValueError(f"remove needs n of at least 1, got {self.n}")
        left = self._minus(_unit(value, denominator, covariate))
        if not left._possible():
            raise ValueError(
                f"no learner with value {value}, denominator {denominator}, covariate {covariate}"
            )
        return left

    def replace(self, old: Observation, new: Observation) -> Moments:
        """Move one learner from `old` to `new`. Raises as `remove` and `add` do."""
        return self.remove(old[0], denominator=old[1], covariate=old[2]).merge(_unit(*new))

    def merge(self, other: Moments) -> Moments:
        """Moments of both groups of learners together."""
        return Moments(
            self.n + other.n,
            self.v + other.v,
            self.d + other.d,
            self.x + other.x,
            self.vv + other.vv,
            self.dd + other.dd,
            self.xx + other.xx,
            self.vd + other.vd,
            self.vx + other.vx,
            self.dx + other.dx,
            self.vvv + other.vvv,
        )

    def sums(self) -> tuple[int, ...]:
        """The eleven whole numbers in the order of the fields, for records: `Moments(*sums)` reads them."""
        return (
            self.n, self.v, self.d, self.x, self.vv, self.dd, self.xx, self.vd, self.vx, self.dx, self.vvv,
        )  # fmt: skip

    def row(self) -> tuple[float, ...]:
        """The numbers of `Centred` in the order of its fields, for arrays."""
        n = self.n
        if n == 0:
            return (0.0,) * 11
        one = n << FRACTION_BITS
        two = n << (2 * FRACTION_BITS)
        v, d, x = self.v, self.d, self.x
        return (
            float(n),
            v / one,
            d / one,
            x / one,
            (n * self.vv - v * v) / two,
            (n * self.dd - d * d) / two,
            (n * self.xx - x * x) / two,
            (n * self.vd - v * d) / two,
            (n * self.vx - v * x) / two,
            (n * self.dx - d * x) / two,
            (n * n * self.vvv - 3 * n * v * self.vv + 2 * v**3) / (n * n << (3 * FRACTION_BITS)),
        )

    def centred(self) -> Centred:
        """Means and centred co-moments, each the exact number rounded once."""
        row = self.row()
        return Centred(
            n=self.n,
            mean_v=row[1],
            mean_d=row[2],
            mean_x=row[3],
            s_vv=row[4],
            s_dd=row[5],
            s_xx=row[6],
            s_vd=row[7],
            s_vx=row[8],
            s_dx=row[9],
            s_vvv=row[10],
        )

    @property
    def mean(self) -> float:
        """Mean of the value; NaN while nobody is in."""
        return self.v / (self.n << FRACTION_BITS) if self.n else math.nan

    @property
    def variance(self) -> float:
        """Sample variance of the value (n - 1 below the line); NaN below two learners."""
        n = self.n
        return (n * self.vv - self.v**2) / (n * (n - 1) << (2 * FRACTION_BITS)) if n > 1 else math.nan

    def _minus(self, other: Moments) -> Moments:
        return Moments(
            self.n - other.n,
            self.v - other.v,
            self.d - other.d,
            self.x - other.x,
            self.vv - other.vv,
            self.dd - other.dd,
            self.xx - other.xx,
            self.vd - other.vd,
            self.vx - other.vx,
            self.dx - other.dx,
            self.vvv - other.vvv,
        )

    def _possible(self) -> bool:
        """Could any learners have these sums? Cauchy-Schwarz, exactly."""
        n = self.n
        return (
            n * self.vv >= self.v * self.v
            and n * self.dd >= self.d * self.d
            and n * self.xx >= self.x * self.x
            and (n > 0 or not any(self.sums()))
        )


def _fixed(number: float) -> int:
    return int(math.ldexp(number, FRACTION_BITS))


def _unit(value: float, denominator: float, covariate: float) -> Moments:
    """Moments of one learner."""
    for name, number in (("value", value), ("denominator", denominator), ("covariate", covariate)):
        if not -LARGEST <= number <= LARGEST:
            raise ValueError(f"{name} must be finite and at most {LARGEST:g} in size, got {number}")
    v, d, x = _fixed(value), _fixed(denominator), _fixed(covariate)
    vv = v * v
    return Moments(1, v, d, x, vv, d * d, x * x, v * d, v * x, d * x, vv * v)


EMPTY = Moments()
