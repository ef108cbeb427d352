"""AnalyticsService: figures over learners and time. Works them out elsewhere."""

from collections.abc import Iterator
from typing import Any

from google.type.date_pb2 import Date

from genie.v1 import analytics_service_pb2 as pb
from genie.v1 import report_pb2
from server import convert, errors
from server.local_days import DEFAULT_TIME_ZONE, local_day
from server.rpc import Call
from server.services.report_messages import learner_report, tenant_report
from server.services.reports import (
    DAY_SPAN,
    WEEK_SPAN,
    Period,
    TenantSums,
    every_learner,
    learner_facts,
)
from server.system_metrics import LEAST_WINDOW_SECONDS, MOST_WINDOW_SECONDS, SystemMetricsReader
from server.tenants import Tenants
from server.validate import Violations
from store.api import Partition, Store
from store.learners import read_profile

INTERVAL_SECONDS = 5.0
LEAST_INTERVAL_SECONDS = 1.0
MOST_INTERVAL_SECONDS = 3_600.0
WATCHED_SECONDS = 60.0
"""Window of a watcher who names none."""


class AnalyticsService:
    """Serves `genie.v1.AnalyticsService`."""

    def __init__(self, *, store: Store, tenants: Tenants, system: SystemMetricsReader) -> None:
        self._store = store
        self._tenants = tenants
        self._system = system

    def get_system_metrics(
        self, request: pb.GetSystemMetricsRequest, call: Call
    ) -> pb.GetSystemMetricsResponse:
        """How the server fares, and what was done today."""
        check = Violations()
        window = _span(
            check, request, "window", LEAST_WINDOW_SECONDS, MOST_WINDOW_SECONDS, MOST_WINDOW_SECONDS
        )
        check.check()
        return pb.GetSystemMetricsResponse(metrics=self._system.read(call.tenant, call.now, window))

    def watch_system_metrics(
        self, request: pb.WatchSystemMetricsRequest, call: Call
    ) -> Iterator[pb.WatchSystemMetricsResponse]:
        """The same again and again."""
        check = Violations()
        interval = _span(
            check, request, "interval", LEAST_INTERVAL_SECONDS, MOST_INTERVAL_SECONDS, INTERVAL_SECONDS
        )
        window = _span(check, request, "window", LEAST_WINDOW_SECONDS, MOST_WINDOW_SECONDS, WATCHED_SECONDS)
        check.check()
        while True:
            call.renew()
            yield pb.WatchSystemMetricsResponse(metrics=self._system.read(call.tenant, call.now, window))
            call.pause(interval)

    def get_daily_report(self, request: pb.GetDailyReportRequest, call: Call) -> pb.GetDailyReportResponse:
        """A day of a learner, or of all."""
        last = _checked(request, "date", call)
        if request.learner_id:
            return pb.GetDailyReportResponse(learner_report=self._learner(request, call, last, DAY_SPAN))
        return pb.GetDailyReportResponse(tenant_report=self._tenant(call, last, DAY_SPAN))

    def get_weekly_summary(
        self, request: pb.GetWeeklySummaryRequest, call: Call
    ) -> pb.GetWeeklySummaryResponse:
        """A week of a learner, or of all."""
        last = _checked(request, "last_date", call)
        if request.learner_id:
            return pb.GetWeeklySummaryResponse(learner_report=self._learner(request, call, last, WEEK_SPAN))
        return pb.GetWeeklySummaryResponse(tenant_report=self._tenant(call, last, WEEK_SPAN))

    def _learner(
        self,
        request: pb.GetDailyReportRequest | pb.GetWeeklySummaryRequest,
        call: Call,
        last: int | None,
        span: int,
    ) -> report_pb2.LearnerReport:
        bundle = self._tenants.of(call)
        with self._store.read(Partition(call.tenant, request.learner_id)) as reader:
            profile = read_profile(reader)
            if profile is None:
                raise errors.LearnerNotFound(learner_id=request.learner_id)
            facts = learner_facts(
                reader, profile, bundle, call.now, _period(last, call.now, profile.time_zone, span)
            )
        return learner_report(facts, bundle, call.now)

    def _tenant(self, call: Call, last: int | None, span: int) -> report_pb2.TenantReport:
        bundle = self._tenants.of(call)
        period = _period(last, call.now, DEFAULT_TIME_ZONE, span)
        sums = TenantSums.empty(bundle, period)
        for facts in every_learner(self._store, call.tenant, bundle, call.now, period):
            call.check()
            sums.add(facts, bundle)
        return tenant_report(sums, bundle, call.now)


def _checked(
    request: pb.GetDailyReportRequest | pb.GetWeeklySummaryRequest, field: str, call: Call
) -> int | None:
    """The day asked for; None when it is left open."""
    check = Violations()
    check.identifier("learner_id", request.learner_id, required=False)
    day = None
    if request.HasField(field):  # type: ignore[arg-type]
        day = _day(check, field, getattr(request, field), most=local_day(call.now, DEFAULT_TIME_ZONE) + 1)
    check.check()
    return day


def _day(check: Violations, field: str, value: Date, *, most: int) -> int:
    """The number of a whole date from 1970 on, at most `most`."""
    try:
        day = convert.day_number(value)
    except ValueError:
        check.add(field, "is no calendar date")
        return 0
    if not 0 <= day <= most:
        check.add(
            field, f"is {value.year:04d}-{value.month:02d}-{value.day:02d}; must be from 1970 to tomorrow"
        )
    return day


def _period(last: int | None, now: float, time_zone: str, span: int) -> Period:
    return Period.over(now, time_zone, span) if last is None else Period.ending(last, span)


def _span(check: Violations, request: Any, name: str, least: float, most: float, default: float) -> float:
    """Seconds of an optional Duration."""
    if not request.HasField(name):
        return default
    return check.duration(name, getattr(request, name), least_seconds=least, most_seconds=most)
