"""What the learners of an experiment add up to, by phase, metric and arm, to the bit. Knows no learner and no report.

EXPERIMENT_CELL     phase (u16), metric (u16), arm (u8) -> moments
EXPERIMENT_COUNTS   phase (u16)                         -> learners assigned and exposed, by arm
"""

from typing import Final

from engine.experiments.moments import EMPTY, SUM_BYTES, Moments, Observation
from engine.experiments.plan import PhaseSnapshot
from store.api import Reader, Table, Transaction
from store.codec import Versioned
from store.experiments import ExperimentRecord

_CELL: Final = Versioned("experiment moments", 1)


def snapshots(reader: Reader, experiment: ExperimentRecord) -> list[PhaseSnapshot]:
    """What each phase has seen."""
    arms = len(experiment.arms)
    cells: dict[tuple[int, int], list[Moments]] = {}
    for key, value in reader.scan(Table.EXPERIMENT_CELL):
        phase, metric, arm = int.from_bytes(key[:2], "big"), int.from_bytes(key[2:4], "big"), key[4]
        cells.setdefault((phase, metric), [EMPTY] * arms)[arm] = _decode_moments(value)
    found = []
    for number, phase_record in enumerate(experiment.phases):
        assigned, exposed = _decode_counts(reader.get(Table.EXPERIMENT_COUNTS, _phase_key(number)), arms)
        moments = {
            metric.name: cells[number, place]
            for place, metric in enumerate(experiment.metrics)
            if (number, place) in cells
        }
        found.append(
            PhaseSnapshot(weights=phase_record.weights, exposed=exposed, assigned=assigned, moments=moments)
        )
    return found


def change_moments(
    tx: Transaction, metric: int, cell: tuple[int, int], observation: Observation, *, enters: bool
) -> None:
    """Put what a learner contributes to a metric into a cell, a (phase, arm), or take it out."""
    key = _phase_key(cell[0]) + metric.to_bytes(2, "big") + bytes((cell[1],))
    held = tx.get(Table.EXPERIMENT_CELL, key)
    moments = EMPTY if held is None else _decode_moments(held)
    value, denominator, covariate = observation
    change = moments.add if enters else moments.remove
    moments = change(value, denominator=denominator, covariate=covariate)
    tx.put(Table.EXPERIMENT_CELL, key, _encode_moments(moments))


def count_learner(
    tx: Transaction, experiment: ExperimentRecord, cell: tuple[int, int], step: int, *, exposed: bool
) -> None:
    """Count a learner into a cell, a (phase, arm), with step 1, or out of it with −1."""
    phase, arm = cell
    key = _phase_key(phase)
    met, shown = _decode_counts(tx.get(Table.EXPERIMENT_COUNTS, key), len(experiment.arms))
    met[arm] += step
    shown[arm] += step if exposed else 0
    packed = b"".join(count.to_bytes(8, "big") for count in (*met, *shown))
    tx.put(Table.EXPERIMENT_COUNTS, key, packed)


def _decode_counts(value: bytes | None, arms: int) -> tuple[list[int], list[int]]:
    if value is None:
        return [0] * arms, [0] * arms
    counts = [int.from_bytes(value[i : i + 8], "big") for i in range(0, len(value), 8)]
    return counts[:arms], counts[arms:]


def _encode_moments(moments: Moments) -> bytes:
    return _CELL.seal(b"".join(n.to_bytes(SUM_BYTES, "little", signed=True) for n in moments.sums()))


def _decode_moments(value: bytes) -> Moments:
    packed = _CELL.open(value)
    return Moments(
        *(
            int.from_bytes(packed[i : i + SUM_BYTES], "little", signed=True)
            for i in range(0, len(packed), SUM_BYTES)
        )
    )


def _phase_key(phase: int) -> bytes:
    return phase.to_bytes(2, "big")
