"""Reports as messages. Works out nothing that `reports` has not."""

from engine import habits
from engine.reports import Practice, TenantTally
from genie.v1 import progress_pb2
from genie.v1 import report_pb2 as pb
from server import convert
from server.learner_views import (
    daily_goal_message,
    due_rows,
    gap_messages,
    milestone_messages,
    streak_message,
    touched_rows,
)
from server.services.plans import plan_messages
from server.services.progress import area_standings, day_messages, projection_message, velocity_message
from server.services.reports import LearnerFacts, Period, TenantSums
from server.tenants import Bundle

MOST_LISTED = 20


def learner_report(facts: LearnerFacts, bundle: Bundle, now: float) -> pb.LearnerReport:
    """The report on a learner."""
    profile, state, view, period = facts.profile, facts.state, facts.view, facts.period
    catalog, today = bundle.catalog, facts.today
    rows = touched_rows(state, catalog)
    goal = daily_goal_message(state, profile, today)
    target_seconds = goal.target_duration.seconds + goal.target_duration.nanos * 1e-9
    message = pb.LearnerReport(
        learner_id=profile.learner_id,
        display_name=profile.display_name,
        time_zone=profile.time_zone,
        period=period_message(Period(period.first, period.last)),
        create_time=convert.timestamp(now),
        practice=practice_message(period.practice),
        practice_before=practice_message(period.before),
        days=day_messages(period.days, first_day=period.first),
        mastered_concept_ids=sorted(map(bundle.concept_id, period.mastered_rows.tolist())),
        lost_concept_ids=sorted(map(bundle.concept_id, period.lost_rows.tolist())),
        goal_met_days_count=int((period.days.seconds >= target_seconds).sum()),
        streak=streak_message(state, today, now),
        daily_goal=goal,
        risks=[progress_pb2.RiskReason.ValueType(risk) for risk in facts.risks],
        mastered_total_count=int(view.mastered[rows].sum()),
        due_concepts_count=len(due_rows(view, rows, now)),
        areas=area_standings(catalog, view),
        gaps=gap_messages(facts.gaps, view, catalog),
        velocity=velocity_message(facts.history, facts.first_day, today, before=False),
        goal_projection=projection_message(
            profile.goal, facts.history, facts.first_day, view, catalog, today, now
        ),
        path=plan_messages(facts.path_days, facts.path, catalog, view),
    )
    for day, streak in period.milestones:
        message.milestones.extend(milestone_messages(streak, day))
    if facts.first_day is not None:
        share = habits.consistency(state, today, facts.first_day)
        if share is not None:
            message.consistency = share
    return message


def at_risk_message(facts: LearnerFacts) -> pb.LearnerAtRisk:
    """A learner at risk."""
    return pb.LearnerAtRisk(
        learner_id=facts.profile.learner_id,
        display_name=facts.profile.display_name,
        reasons=[progress_pb2.RiskReason.ValueType(risk) for risk in facts.risks],
        last_practice_date=convert.calendar_date(int(facts.state.header["last_day"][0])),
    )


def tenant_report(sums: TenantSums, bundle: Bundle, now: float) -> pb.TenantReport:
    """The report on all learners."""
    tally = sums.tally
    message = pb.TenantReport(
        period=period_message(Period(tally.first, tally.last)),
        create_time=convert.timestamp(now),
        learners_count=tally.learners,
        active_learners_count=tally.active,
        active_learners_before_count=tally.active_before,
        new_learners_count=tally.new,
        practice=practice_message(tally.practice),
        practice_before=practice_message(tally.before),
        days=_days(tally),
        mastered_total_count=tally.mastered,
        milestones_count=tally.milestones,
        streaks_held_count=tally.streaks_held,
        streaks_kept_count=tally.streaks_kept,
        at_risk_learners_count=tally.at_risk,
        risk_counts=[
            pb.RiskCount(reason=progress_pb2.RiskReason.ValueType(risk), learners_count=count)
            for risk, count in sorted(tally.risks.items())
        ],
        at_risk_learners=map(at_risk_message, sums.at_risk),
        lapsed_learners_count=tally.lapsed,
        hardest_concepts=_hardest(tally, bundle),
        common_gaps=_gaps(tally, bundle),
        path=_path(tally, bundle),
    )
    if tally.active:
        mean_seconds = tally.practice.seconds / tally.active
        message.practice_duration_per_active_learner.CopyFrom(convert.duration(mean_seconds))
    if tally.streaks_held:
        message.streaks_kept_share = tally.streaks_kept / tally.streaks_held
    return message


def period_message(period: Period) -> pb.ReportPeriod:
    """The days of a report."""
    return pb.ReportPeriod(
        first_date=convert.calendar_date(period.first), last_date=convert.calendar_date(period.last)
    )


def practice_message(practice: Practice) -> pb.PracticeTotals:
    """Sums over a period."""
    return pb.PracticeTotals(
        active_days_count=practice.active_days,
        sessions_count=practice.sessions,
        answers_count=practice.answers,
        correct_count=practice.correct,
        accuracy=practice.correct / practice.answers if practice.answers else None,
        practice_duration=convert.duration(practice.seconds),
        mastered_concepts_count=practice.mastered,
        lost_concepts_count=practice.lost,
    )


def _days(tally: TenantTally) -> list[pb.TenantDay]:
    return [
        pb.TenantDay(
            date=convert.calendar_date(tally.first + place),
            active_learners_count=int(learners),
            answers_count=int(answers),
            correct_count=int(correct),
            practice_duration=convert.duration(seconds),
            mastered_concepts_count=int(mastered),
        )
        for place, (learners, answers, correct, seconds, mastered) in enumerate(tally.days.tolist())
    ]


def _hardest(tally: TenantTally, bundle: Bundle) -> list[pb.ConceptDifficulty]:
    messages = []
    for row in tally.hardest(MOST_LISTED):
        answers, correct, learners = tally.by_concept[row].tolist()
        messages.append(
            pb.ConceptDifficulty(
                concept_id=bundle.concept_id(row),
                title=bundle.catalog.titles[row],
                answers_count=answers,
                correct_count=correct,
                learners_count=learners,
                smoothed_accuracy=(correct + 1) / (answers + 2),
            )
        )
    return messages


def _gaps(tally: TenantTally, bundle: Bundle) -> list[pb.GapCount]:
    titles = bundle.catalog.titles
    return [
        pb.GapCount(
            concept_id=bundle.concept_id(row),
            title=titles[row],
            cause_concept_id=bundle.concept_id(cause) if cause >= 0 else "",
            cause_title=titles[cause] if cause >= 0 else "",
            learners_count=learners,
        )
        for (row, cause), learners in tally.common_gaps(MOST_LISTED)
    ]


def _path(tally: TenantTally, bundle: Bundle) -> list[pb.PlannedConcept]:
    return [
        pb.PlannedConcept(
            concept_id=bundle.concept_id(row),
            title=bundle.catalog.titles[row],
            review_learners_count=int(tally.planned[row, 0]),
            opening_learners_count=int(tally.planned[row, 1]),
        )
        for row in tally.most_planned(MOST_LISTED)
    ]
