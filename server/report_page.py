"""A report on all learners as one HTML page that a teacher reads. Loads nothing, runs no script, reads no store."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.type.date_pb2 import Date

from genie.v1 import progress_pb2, report_pb2
from server import convert
from server.report_plots import day_bars, name_bars, tiny_bars

MOST_NAMED: Final = 8
"""Concepts named of a day of a path; the rest are counted."""

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;color:#212529;max-width:820px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}.quiet{color:#5b6770}.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
.tile{flex:1 1 130px;background:#f1f3f5;padding:.5rem .8rem}.tile b{display:block;font-size:1.4rem}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:.3rem .5rem;
border-bottom:1px solid #dee2e6;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto}svg.tiny{width:auto;height:20px;vertical-align:middle}
svg text{font:12px system-ui,sans-serif;fill:#495057}details{border-bottom:1px solid #dee2e6;padding:.3rem 0}
summary{cursor:pointer}.risk{background:#fff0f0;color:#a61e4d;padding:0 .4rem;border-radius:3px;font-size:13px}
"""

_RISKS: Final = {
    progress_pb2.RISK_REASON_STREAK_ENDING: "streak ends today",
    progress_pb2.RISK_REASON_AWAY: "away for longer than usual",
    progress_pb2.RISK_REASON_DECLINING: "practises less",
    progress_pb2.RISK_REASON_STRUGGLING: "struggles",
}
_CAUSES: Final = {
    progress_pb2.GAP_CAUSE_KIND_FORGOTTEN: "has been forgotten",
    progress_pb2.GAP_CAUSE_KIND_NOT_LEARNED: "is not learned",
    progress_pb2.GAP_CAUSE_KIND_UNTESTED: "has not been tested",
}


def report_page(
    report: report_pb2.TenantReport, sections: Iterable[str], *, title: str, shown: int
) -> Iterable[str]:
    """The page in pieces; `sections` are `learner_section`s, of the first `shown` learners."""
    sentence = _period(report.period)
    yield (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1><p class='quiet'>{sentence}</p>"
    )
    yield _tiles(report)
    if len(report.days) > 1:
        yield _by_day(report)
    yield _hardest(report) + _gaps(report) + _at_risk(report) + _path(report)
    rest = report.learners_count - shown
    more = f" The other {rest:,} are in the JSONL file." if rest > 0 else ""
    yield f"<h2>Learners</h2><p class='quiet'>In order of their ids.{more}</p>"
    yield from sections
    yield "</body></html>\n"


def learner_section(report: report_pb2.LearnerReport, titles: Mapping[str, str]) -> str:
    """One learner's part of the page, folded up; `titles` are concepts' names by id."""
    practice = report.practice
    minutes = _minutes(practice.practice_duration)
    head = [
        f"<b>{escape(report.display_name or report.learner_id)}</b>",
        f"{minutes:.0f} min, {practice.answers_count} answers{_share(practice)}",
        f"streak {report.streak.current_days} d",
        *(f"<span class='risk'>{_RISKS[risk]}</span>" for risk in report.risks if risk in _RISKS),
    ]
    if len(report.days) > 0:
        head.insert(1, tiny_bars(_week_of(report), "minutes a day"))
    parts = [_mastery(report, titles), _stuck(report.gaps, titles), _goal(report, titles)]
    areas = [area for area in report.areas if area.touched_concepts_count]
    if areas:
        names = [area.area or "without area" for area in areas]
        mastery = [area.mean_mastery for area in areas]
        parts.append(name_bars(names, [("mastery", mastery)], "mean mastery by area", most=1.0))
    parts.append(_learner_path(report.path, titles))
    return f"<details><summary>{' · '.join(head)}</summary>{''.join(parts)}</details>\n"


def _tiles(report: report_pb2.TenantReport) -> str:
    practice, before = report.practice, report.practice_before
    per_learner = _minutes(report.practice_duration_per_active_learner)
    tiles = [
        (f"{report.active_learners_count:,}", f"of {report.learners_count:,} learners practised",
         f"{report.active_learners_before_count:,} before"),
        (f"{_minutes(practice.practice_duration):,.0f} min", f"of practice, {per_learner:.0f} a learner",
         f"{_minutes(before.practice_duration):,.0f} before"),
        (f"{practice.accuracy:.0%}" if practice.answers_count else "–", f"of {practice.answers_count:,} answers right",
         f"{before.accuracy:.0%} of {before.answers_count:,} before" if before.answers_count else "none before"),
        (f"{practice.mastered_concepts_count:,}", f"concepts mastered, {practice.lost_concepts_count:,} lost",
         f"{before.mastered_concepts_count:,} before"),
        (f"{report.streaks_kept_share:.0%}" if report.streaks_held_count else "–",
         f"of {report.streaks_held_count:,} streaks kept", f"{report.milestones_count:,} milestones"),
        (f"{report.at_risk_learners_count:,}", "learners at risk now", f"{report.lapsed_learners_count:,} long gone"),
    ]  # fmt: skip
    drawn = (
        f"<div class='tile'><b>{value}</b>{text}<br><span class='quiet'>{quiet}</span></div>"
        for value, text, quiet in tiles
    )
    return f"<div class='tiles'>{''.join(drawn)}</div>"


def _by_day(report: report_pb2.TenantReport) -> str:
    days = [_day(day.date) for day in report.days]
    right = [float(day.correct_count) for day in report.days]
    wrong = [float(day.answers_count - day.correct_count) for day in report.days]
    active = [float(day.active_learners_count) for day in report.days]
    minutes = [_minutes(day.practice_duration) for day in report.days]
    return (
        "<h2>Answers by day</h2>"
        + day_bars(days, [("right", right), ("wrong", wrong)], "answers by day")
        + "<h2>Learners by day</h2>"
        + day_bars(days, [("learners who practised", active)], "active learners by day")
        + "<h2>Minutes by day</h2>"
        + day_bars(days, [("minutes", minutes)], "minutes by day")
    )


def _hardest(report: report_pb2.TenantReport) -> str:
    if not report.hardest_concepts:
        return ""
    names = [f"{concept.title} ({concept.answers_count:,} answers)" for concept in report.hardest_concepts]
    rates = [concept.correct_count / concept.answers_count for concept in report.hardest_concepts]
    return "<h2>Hardest concepts</h2>" + name_bars(names, [("right", rates)], "share right", most=1.0)


def _gaps(report: report_pb2.TenantReport) -> str:
    if not report.common_gaps:
        return ""
    rows = "".join(
        f"<tr><td>{escape(gap.title)}</td><td>{escape(gap.cause_title) or 'itself'}</td>"
        f"<td class='n'>{gap.learners_count:,}</td></tr>"
        for gap in report.common_gaps
    )
    head = "<tr><th>Stuck at</th><th>Mend first</th><th class='n'>Learners</th></tr>"
    return f"<h2>Most common gaps</h2><table>{head}{rows}</table>"


def _at_risk(report: report_pb2.TenantReport) -> str:
    if not report.at_risk_learners:
        return ""
    rows = "".join(
        f"<tr><td>{escape(learner.display_name or learner.learner_id)}</td>"
        f"<td>{', '.join(_RISKS.get(reason, '') for reason in learner.reasons)}</td>"
        f"<td>{_day(learner.last_practice_date)}</td></tr>"
        for learner in report.at_risk_learners
    )
    rest = report.at_risk_learners_count - len(report.at_risk_learners)
    more = f"<p class='quiet'>and {rest:,} more</p>" if rest else ""
    head = "<tr><th>Learner</th><th>Why</th><th>Last practice</th></tr>"
    return f"<h2>At risk</h2><table>{head}{rows}</table>{more}"


def _path(report: report_pb2.TenantReport) -> str:
    if not report.path:
        return ""
    names = [concept.title for concept in report.path]
    reviews = [float(concept.review_learners_count) for concept in report.path]
    openings = [float(concept.opening_learners_count) for concept in report.path]
    drawn = name_bars(names, [("review", reviews), ("new", openings)], "learners by concept on their path")
    return f"<h2>Next week: concepts by learners who meet them</h2>{drawn}"


def _week_of(report: report_pb2.LearnerReport) -> list[float]:
    """Minutes of each day of the period."""
    first, last = (convert.day_number(d) for d in (report.period.first_date, report.period.last_date))
    by_day = {convert.day_number(day.date): _minutes(day.practice_duration) for day in report.days}
    return [by_day.get(day, 0.0) for day in range(first, last + 1)]


def _mastery(report: report_pb2.LearnerReport, titles: Mapping[str, str]) -> str:
    said = []
    if report.mastered_concept_ids:
        said.append(f"Mastered: {_names(report.mastered_concept_ids, titles)}.")
    if report.lost_concept_ids:
        said.append(f"Lost: {_names(report.lost_concept_ids, titles)}.")
    due = f"{report.due_concepts_count} reviews due" if report.due_concepts_count else "no review due"
    said.append(f"{report.mastered_total_count} concepts mastered in all, {due}.")
    return f"<p>{' '.join(said)}</p>"


def _stuck(gaps: Sequence[progress_pb2.LearningGap], titles: Mapping[str, str]) -> str:
    said = []
    for gap in gaps:
        causes = [
            f"{escape(titles.get(cause.concept_id, cause.concept_id))} {_CAUSES[cause.kind]}"
            for cause in gap.causes
            if cause.kind in _CAUSES
        ]
        behind = "; ".join(causes) or "everything beneath it is sound"
        said.append(
            f"<li>Stuck at <b>{escape(titles.get(gap.concept_id, gap.concept_id))}</b>: {behind}.</li>"
        )
    return f"<ul>{''.join(said)}</ul>" if said else ""


def _goal(report: report_pb2.LearnerReport, titles: Mapping[str, str]) -> str:
    if not report.HasField("goal_projection"):
        return ""
    goal = report.goal_projection
    name = escape(titles.get(goal.concept_id, goal.concept_id))
    if not goal.gap_concepts_count:
        return f"<p>Goal reached: {name}.</p>"
    if not goal.HasField("expected_date"):
        return f"<p>Goal {name}: {goal.gap_concepts_count} concepts to go.</p>"
    late = f" and {_day(goal.latest_date)}" if goal.HasField("latest_date") else " and later than can be said"
    return (
        f"<p>Goal {name}: {goal.gap_concepts_count} concepts to go, about {_day(goal.expected_date)} "
        f"(80 % between {_day(goal.earliest_date)}{late}).</p>"
    )


def _learner_path(path: Sequence[progress_pb2.PlannedDay], titles: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{_day(day.date)}</td><td>{_names([r.concept_id for r in day.reviews], titles)}</td>"
        f"<td>{_names(day.opening_concept_ids, titles)}</td>"
        f"<td class='n'>{_minutes(day.expected_duration):.0f}</td></tr>"
        for day in path
    )
    return f"<table><tr><th>Day</th><th>Review</th><th>New</th><th class='n'>Minutes</th></tr>{rows}</table>"


def _names(concept_ids: Sequence[str], titles: Mapping[str, str]) -> str:
    named = [escape(titles.get(concept_id, concept_id)) for concept_id in concept_ids[:MOST_NAMED]]
    rest = len(concept_ids) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _share(practice: report_pb2.PracticeTotals) -> str:
    return f", {practice.accuracy:.0%} right" if practice.answers_count else ""


def _period(period: report_pb2.ReportPeriod) -> str:
    first, last = _day(period.first_date), _day(period.last_date)
    return first if first == last else f"{first} to {last}"


def _day(date: Date) -> str:
    return f"{date.year:04d}-{date.month:02d}-{date.day:02d}"


def _minutes(duration: Duration) -> float:
    return (duration.seconds + duration.nanos * 1e-9) / 60.0
