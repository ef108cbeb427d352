"""Does the recommender teach? Simulated classrooms whose true models are not ours, against baselines and an oracle.

    python -m bench.classroom [--quick] [--worlds leavers,…] [--policies hybrid_v1,…] [--learners 100]
    python -m bench.classroom --world FILE [--target HOST:PORT]

Prints one JSON object a line. A world is a Python file: see bench/worlds/README.md.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.classrooms.figures import Resampled, best_of, column
from bench.classrooms.play import Course, Outcome
from bench.classrooms.staff import ALL, SIMPLE, Plan, Played, play_all, play_remotely
from bench.output import emit
from bench.worlds import HELD_OUT, WORLDS
from bench.worlds.world import DAY_S, Wilful

BENCH = "classroom"
HYBRID = "hybrid_v1"
SHARE_MEAN_BAR, SHARE_BAR, RATIO_BAR, MINUTES_BAR = 0.85, 0.60, 1.05, 1.15
NOON = 1_750_000_000.0 // DAY_S * DAY_S + 16 * 3600.0
"""Start of every course in this process: what day it is makes no difference."""


def report(world: str, played: Played, *, seed: int, judged: bool) -> tuple[bool, float]:
    """Print what came of one world; return (whether its bars hold, the hybrid's share of the oracle's gain)."""
    outcomes = played.course
    learners = len(next(iter(outcomes.values())))
    again = Resampled(learners, seed)
    gains = {name: column(those, "gain") for name, those in outcomes.items()}
    scaled = "oracle" in gains and "random" in gains
    for name, those in outcomes.items():
        figure = again.mean(gains[name])
        facts: dict[str, object] = {**figure.rounded(), "before": round(_mean(those, "before"), 4)}
        facts["correct"] = round(_mean(those, "correct") / max(_mean(those, "answers"), 1.0), 3)
        facts["minutes"] = round(_mean(those, "minutes"), 1)
        if scaled:
            share = again.share(gains[name], gains["random"], gains["oracle"])
            facts.update(
                share=round(share.value, 3), share_low=round(share.low, 3), share_high=round(share.high, 3)
            )
        emit(BENCH, f"{world}.{name}.gain", round(figure.value, 4), bar="", learners=learners, **facts)
    held, own_share = True, float("nan")
    if HYBRID in gains:
        if scaled:
            own_share = again.share(gains[HYBRID], gains["random"], gains["oracle"]).value
            bar = f">= {SHARE_BAR}" if judged else ""
            held &= emit(BENCH, f"{world}.share_of_oracle", round(own_share, 3), bar=bar)
        if any(name in gains for name in SIMPLE):
            best = best_of(outcomes, SIMPLE)
            ratio = again.ratio(gains[HYBRID], gains[best])
            bar = f">= {RATIO_BAR}" if judged else ""
            held &= emit(
                BENCH,
                f"{world}.over_best_simple",
                round(ratio.value, 3),
                bar=bar,
                best=best,
                **ratio.rounded(3),
            )
    if played.week:
        held &= report_week(world, played.week, again, judged=judged)
    return held, own_share


def report_week(
    world: str, outcomes: Mapping[str, Sequence[Outcome]], again: Resampled, *, judged: bool
) -> bool:
    """Print what came of a week of free will; return whether the bar on minutes holds."""
    minutes = {name: column(those, "minutes") for name, those in outcomes.items()}
    for name, those in outcomes.items():
        figure = again.mean(minutes[name])
        facts = {
            "days": round(_mean(those, "days"), 2),
            "still_there_on_day_7": round(float(np.mean(column(those, "last_day") == 6)), 3),
            "gain": round(_mean(those, "gain"), 4),
        }
        emit(
            BENCH,
            f"{world}.{name}.minutes_7_days",
            round(figure.value, 2),
            bar="",
            **figure.rounded(2),
            **facts,
        )
    if HYBRID not in minutes or "curriculum" not in minutes:
        return True
    ratio = again.ratio(minutes[HYBRID], minutes["curriculum"])
    bar = f">= {MINUTES_BAR}" if judged else ""
    return emit(BENCH, f"{world}.minutes_over_curriculum", round(ratio.value, 3), bar=bar, **ratio.rounded(3))


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    return float(column(outcomes, name).mean())


def run(options: argparse.Namespace) -> bool:
    """Play every world that is asked for, and report; whether all bars hold."""
    worlds = [str(options.world)] if options.world else options.worlds.split(",")
    small = options.quick
    days, answers_a_day = (3, 8) if small else (options.days, options.answers_a_day)
    course = Course(NOON, days, answers_a_day)
    if options.target:
        # A server takes no answers from the future: the last day is today, the exam is left to come.
        course = replace(course, begins_at=time.time() - DAY_S * max(days, 7))
    held, shares = True, []
    for world in worlds:
        plan = Plan(
            world,
            course,
            tuple(options.policies.split(",")),
            options.seed,
            6 if small else options.earlier,
            target=options.target,
        )
        wilful = isinstance(plan.make_world(), Wilful)
        learners = 4 if small else options.learners
        if options.target:
            played = play_remotely(plan, learners, week=wilful)
            held &= emit(BENCH, f"{Path(world).stem}.degraded_slates", played.degraded, bar="== 0")
        else:
            played = play_all(plan, learners, week=wilful, processes=options.processes)
        judged = not small and world in WORLDS and world not in HELD_OUT
        name = Path(world).stem
        name = f"held_out.{name}" if world in HELD_OUT else name
        fine, share = report(name, played, seed=options.seed, judged=judged)
        held &= fine
        if judged:
            shares.append(share)
    if shares and np.isfinite(shares).all():
        bar = f">= {SHARE_MEAN_BAR}" if len(shares) == len(WORLDS) - len(HELD_OUT) else ""
        held &= emit(
            BENCH, "mean_share_of_oracle", round(float(np.mean(shares)), 3), bar=bar, worlds=len(shares)
        )
    return held


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 learners, 24 answers each, no bars")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="worlds that are here, by name")
    parser.add_argument("--world", type=Path, help="a Python file with make_world(seed), instead")
    parser.add_argument(
        "--target", default="", help="a running server, as host:port, instead of this process"
    )
    parser.add_argument("--policies", default=",".join(ALL), help="policies and baselines, by name")
    parser.add_argument("--learners", type=int, default=100)
    parser.add_argument("--days", type=int, default=12)
    parser.add_argument("--answers-a-day", type=int, default=20)
    parser.add_argument(
        "--earlier", type=int, default=60, help="learners that others' practice is taken from"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=1)
    return 0 if run(parser.parse_args()) else 1


if __name__ == "__main__":
    sys.exit(main())
