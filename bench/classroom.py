"""Does the recommender teach? Simulated classrooms whose true models are not ours, against baselines and an oracle.

    python -m bench.classroom [--quick] [--worlds leavers,…] [--policies hybrid_v1,…] [--learners 100] [--report DIR]
    python -m bench.classroom --world FILE [--target HOST:PORT]

Prints one JSON object a line. A world is a Python file: see bench/worlds/README.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import numpy as np

from bench.classrooms.figures import Resampled, best_of, column
from bench.classrooms.play import Course, Outcome
from bench.classrooms.report import Row, write_report
from bench.classrooms.staff import ALL, SEEING, SIMPLE, Plan, Played, play_all, play_remotely
from bench.output import emit
from bench.worlds import HELD_OUT, WORLDS
from bench.worlds.world import DAY_S, Wilful, load_world
from engine.policy import BUILT_IN

BENCH = "classroom"
HYBRID, ORACLE, RANDOM, TEXTBOOK = "hybrid_v1", "oracle", "random", "curriculum"
SHARE_MEAN_BAR, SHARE_BAR, RATIO_BAR, MINUTES_BAR = 0.85, 0.60, 1.05, 1.15
AFTERNOON = 1_750_000_000.0 // DAY_S * DAY_S + 16 * 3600.0
"""Start of every course in this process: what day it is makes no difference."""


@dataclass
class Run:
    """Lines told so far, rows by world, and whether all bars held."""

    lines: list[dict[str, object]] = field(default_factory=list)
    worlds: dict[str, list[Row]] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)
    """Of the worlds that bars are about."""
    held: bool = True

    def tell(self, metric: str, value: float, bar: str = "", **facts: object) -> None:
        """Print one line and keep it; a bar that does not hold is remembered."""
        holds = emit(BENCH, metric, value, bar=bar, **facts)
        judged: dict[str, object] = {"bar": bar, "holds": holds} if bar else {}
        self.lines.append({"bench": BENCH, "metric": metric, "value": value, **judged, **facts})
        self.held &= holds


def rows_of(played: Played, again: Resampled) -> list[Row]:
    """Return what every teacher reached, with intervals."""
    outcomes = played.course
    gains = {name: column(those, "gain") for name, those in outcomes.items()}
    scaled = ORACLE in gains and RANDOM in gains
    rows = []
    for name, those in outcomes.items():
        free = played.week.get(name)
        rows.append(
            Row(
                teacher=name,
                simple=name in SIMPLE,
                gain=again.mean(gains[name]),
                share=again.share(gains[name], gains[RANDOM], gains[ORACLE]) if scaled else None,
                correct=_mean(those, "correct") / max(_mean(those, "answers"), 1.0),
                minutes=again.mean(column(free, "minutes")) if free else None,
                days=_mean(free, "days") if free else 0.0,
            )
        )
    return rows


def report(run: Run, world: str, played: Played, *, seed: int, judged: bool) -> None:
    """Tell what came of one world."""
    outcomes = played.course
    learners = len(next(iter(outcomes.values())))
    again = Resampled(learners, seed)
    rows = run.worlds[world] = rows_of(played, again)
    for row in rows:
        facts: dict[str, object] = {
            "learners": learners,
            **row.gain.rounded(),
            "correct": round(row.correct, 3),
        }
        if row.share is not None:
            facts |= {"share": round(row.share.value, 3)}
            facts |= {f"share_{end}": value for end, value in row.share.rounded(3).items()}
        facts["before"] = round(_mean(outcomes[row.teacher], "before"), 4)
        facts["answers"] = round(_mean(outcomes[row.teacher], "answers"), 1)
        run.tell(f"{world}.{row.teacher}.gain", round(row.gain.value, 4), "", **facts)
    hybrid = next((row for row in rows if row.teacher == HYBRID), None)
    if hybrid is not None:
        if hybrid.share is not None:
            share = hybrid.share
            run.tell(
                f"{world}.share_of_oracle",
                round(share.value, 3),
                f">= {SHARE_BAR}" if judged else "",
                **share.rounded(3),
            )
            if judged:
                run.shares.append(share.value)
        if any(row.simple for row in rows):
            best = best_of(outcomes, SIMPLE)
            ratio = again.ratio(column(outcomes[HYBRID], "gain"), column(outcomes[best], "gain"))
            bar = f">= {RATIO_BAR}" if judged else ""
            run.tell(f"{world}.over_best_simple", round(ratio.value, 3), bar, best=best, **ratio.rounded(3))
    if played.week:
        report_week(run, world, played, again, judged=judged)


def report_week(run: Run, world: str, played: Played, again: Resampled, *, judged: bool) -> None:
    """Tell what came of a week of free will."""
    for row in run.worlds[world]:
        if row.minutes is None:
            continue
        those = played.week[row.teacher]
        run.tell(
            f"{world}.{row.teacher}.minutes_7_days",
            round(row.minutes.value, 2),
            "",
            **row.minutes.rounded(2),
            days=round(row.days, 2),
            there_on_day_7=round(float(np.mean(column(those, "last_day") == 6)), 3),
            gain=round(_mean(those, "gain"), 4),
        )
    if HYBRID in played.week and TEXTBOOK in played.week:
        ratio = again.ratio(column(played.week[HYBRID], "minutes"), column(played.week[TEXTBOOK], "minutes"))
        bar = f">= {MINUTES_BAR}" if judged else ""
        run.tell(f"{world}.minutes_over_curriculum", round(ratio.value, 3), bar, **ratio.rounded(3))


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    return float(column(outcomes, name).mean())


def plan_of(options: argparse.Namespace, world: str) -> Plan:
    """Return what is to be played in a world."""
    small = options.quick
    days, answers_a_day = (3, 8) if small else (options.days, options.answers_a_day)
    course = Course(AFTERNOON, days, answers_a_day)
    if options.target:
        # A server takes no answers from the future: the last day is today, the exam is left to come.
        course = replace(course, begins_at=time.time() - DAY_S * max(days, 7))
    teachers = tuple(options.policies.split(","))
    return Plan(world, course, teachers, options.seed, 6 if small else options.earlier, target=options.target)


def problem_of(options: argparse.Namespace) -> str:
    """Return what is wrong with a world's file, or with the name of a world or a teacher; empty when nothing is."""
    if options.world is None:
        unknown = [name for name in options.worlds.split(",") if name not in WORLDS]
        if unknown:
            return f"there is no world {unknown[0]!r}; there are {', '.join(WORLDS)}"
    else:
        try:
            load_world(options.world, options.seed)
        except (OSError, ValueError) as error:
            return f"{options.world}: {error}"
    # Which policies a server knows, it says itself.
    known = dict.fromkeys([*ALL, *SEEING, *BUILT_IN])
    unknown = [name for name in options.policies.split(",") if name not in known]
    if unknown and not options.target:
        return f"there is no teacher {unknown[0]!r}; there are {', '.join(known)}"
    return ""


def play_worlds(options: argparse.Namespace) -> Run:
    """Play every world that is asked for, and tell what came of it."""
    run = Run()
    worlds = [str(options.world)] if options.world else options.worlds.split(",")
    learners = 4 if options.quick else options.learners
    for world in worlds:
        plan = plan_of(options, world)
        wilful = isinstance(plan.make_world(), Wilful)
        name = f"held_out.{world}" if world in HELD_OUT else Path(world).stem
        if options.target:
            played = play_remotely(plan, learners, week=wilful)
            run.tell(f"{name}.degraded_slates", played.degraded, "== 0")
        else:
            played = play_all(plan, learners, week=wilful, processes=options.processes)
        judged = not options.quick and world in WORLDS and world not in HELD_OUT
        report(run, name, played, seed=options.seed, judged=judged)
    if run.shares:
        whole = len(run.shares) == len(WORLDS) - len(HELD_OUT)
        mean = round(float(np.mean(run.shares)), 3)
        run.tell(
            "mean_share_of_oracle", mean, f">= {SHARE_MEAN_BAR}" if whole else "", worlds=len(run.shares)
        )
    if options.report:
        write_report(options.report, run.worlds, run.lines, learners=learners)
    return run


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
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--answers-a-day", type=int, default=20)
    parser.add_argument(
        "--earlier", type=int, default=60, help="learners that others' practice is taken from"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=1, help="processes that share the learners")
    parser.add_argument("--report", type=Path, help="folder for the lines, a Markdown table and a plot")
    options = parser.parse_args()
    problem = problem_of(options)
    if problem:
        parser.error(problem)
    try:
        return 0 if play_worlds(options).held else 1
    except grpc.RpcError as error:
        # A call's error has a code and a sentence, which the base class does not know of.
        code, details = getattr(error, "code", None), getattr(error, "details", None)
        said = f"{code().name}: {details()}" if code and details else str(error)
        parser.exit(2, f"{options.target}: {said}\n")


if __name__ == "__main__":
    sys.exit(main())
