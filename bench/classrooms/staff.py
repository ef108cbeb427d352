"""Which teachers take part, by name, and classes of learners taught by all of them. Reports nothing."""

import concurrent.futures
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.classrooms.baselines import PopularTeacher, ReviewQueue, Textbook, UniformTeacher
from bench.classrooms.engine import EngineTeacher, School, earlier_learners
from bench.classrooms.observer import Observer
from bench.classrooms.play import Course, Oracle, Outcome, Teacher, play_course, play_week
from bench.classrooms.remote import RemoteSchool, RemoteTeacher
from bench.worlds import WORLDS
from bench.worlds.world import SeesGains, World, load_world
from engine.policy import BUILT_IN, Policy

SIMPLE = (
    "random",
    "popularity",
    "curriculum",
    "review_queue",
    "collaborative_filtering_v2",
    "spaced_repetition_v1",
)
"""What a platform could do without Genie's hybrid: a simple rule, or one source alone."""

LEARNERS_AT_ONCE = 4
"""Learners that are taught at the same time over gRPC."""

ALL = (*SIMPLE, "content_based_v1", "popularity_v1", "random_v1", "zone_v1", "hybrid_v1", "oracle")


SEEING = ("oracle", "observer")
"""Who needs a world that knows what questions are worth; the observer, slow as it is, plays only when named."""


@dataclass(frozen=True)
class Plan:
    """What is played."""

    world: str
    """Name of a world here, or path of a Python file."""
    course: Course
    teachers: tuple[str, ...] = ALL
    seed: int = 7
    earlier: int = 60
    """Learners whose practice popularity and the collaborative filter are made from."""
    policies: Mapping[str, Policy] | None = None
    """Those that names stand for; the built-in ones when None."""
    target: str = ""
    """Server whose policies names stand for, as host:port; this process when empty."""

    def make_world(self) -> World:
        """Return the world.

        Raises:
            ValueError: the file holds none.
        """
        if self.world in WORLDS:
            return WORLDS[self.world](self.seed)
        return load_world(Path(self.world), self.seed)


def staff(world: World, plan: Plan, remote: RemoteSchool | None = None) -> list[Teacher]:
    """Return the teachers of a plan, policies those of `remote` if given; an oracle only for a world that has one.

    Raises:
        KeyError: a name is neither a policy nor a baseline.
    """
    policies = plan.policies or BUILT_IN
    simple: list[Teacher] = [Textbook(world), UniformTeacher(world, plan.seed), ReviewQueue(world)]
    log = earlier_learners(world, simple, plan.course, plan.earlier)
    school = School.of(world, log.model(world, plan.seed)) if remote is None else None
    by_name: dict[str, Teacher] = {teacher.name: teacher for teacher in simple}
    by_name["popularity"] = PopularTeacher(log.counts(len(world.questions)))
    if isinstance(world, SeesGains):
        by_name["oracle"] = Oracle(world, plan.course.exam_at)
        by_name["observer"] = Observer(world, plan.course.exam_at, plan.seed)

    def policy(name: str) -> Teacher:
        if remote is not None:
            return RemoteTeacher(remote, name)
        assert school is not None
        return EngineTeacher(school, policies[name], plan.seed)

    wanted = [name for name in plan.teachers if name in by_name or name not in SEEING]
    return [by_name[name] if name in by_name else policy(name) for name in wanted]


@dataclass(frozen=True)
class Played:
    """Outcomes by teacher, and by learner within."""

    course: dict[str, list[Outcome]]
    week: dict[str, list[Outcome]]
    """Empty when learners were not left to their own will."""
    degraded: int = 0
    """Slates that a server said were less than it could do."""


def play(plan: Plan, numbers: Sequence[int], *, week: bool) -> Played:
    """Teach learners by every teacher of the plan; with `week` also let them practise at will."""
    world = plan.make_world()
    teachers = staff(world, plan)
    course = {t.name: [play_course(world, t, n, plan.course) for n in numbers] for t in teachers}
    free = {t.name: [play_week(world, t, n, plan.course) for n in numbers] for t in teachers} if week else {}
    return Played(course, free)


def play_all(plan: Plan, learners: int, *, week: bool, processes: int = 1) -> Played:
    """Teach learners 0 to `learners` − 1, spread over processes; the outcomes do not depend on how many."""
    if processes == 1:
        return play(plan, range(learners), week=week)
    parts = [range(start, learners, processes) for start in range(processes)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = list(pool.map(_part, [(plan, part, week) for part in parts]))
    return Played(
        _merged([one.course for one in done], learners), _merged([one.week for one in done], learners)
    )


def play_remotely(plan: Plan, learners: int, *, week: bool) -> Played:
    """Teach learners 0 to `learners` − 1 with the policies of a running server, some learners at a time.

    Raises:
        grpc.RpcError: a call failed. RuntimeError: the server refuses what it is sent.
    """
    world = plan.make_world()
    course: dict[str, list[Outcome]] = {}
    free: dict[str, list[Outcome]] = {}
    degraded = 0
    with concurrent.futures.ThreadPoolExecutor(LEARNERS_AT_ONCE) as pool:
        # A tenant for the lesson and one for the week: learners are new in both.
        for outcomes, one in ((course, play_course), (free, play_week))[: 1 + week]:
            school = RemoteSchool(world, plan.target)
            school.open()
            for teacher in staff(world, plan, school):
                played = pool.map(
                    lambda n, one=one, t=teacher: one(world, t, n, plan.course), range(learners)
                )
                outcomes[teacher.name] = list(played)
            degraded += school.degraded
            school.close()
    return Played(course, free, degraded)


def _part(task: tuple[Plan, Sequence[int], bool]) -> Played:
    plan, numbers, week = task
    return play(plan, numbers, week=week)


def _merged(parts: Sequence[dict[str, list[Outcome]]], learners: int) -> dict[str, list[Outcome]]:
    """Put outcomes dealt out in turns back into the order of learners."""
    count = len(parts)
    return {name: [parts[n % count][name][n // count] for n in range(learners)] for name in parts[0]}
