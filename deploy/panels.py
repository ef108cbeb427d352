"""The panels of the Grafana dashboard: what each shows and asks Prometheus. Draws and writes nothing.

Metrics are those of docs/metrics.md. `$job` and `$tenant` are the dashboard's variables.
"""

from dataclasses import dataclass

TIMELINE, STAT, TABLE = "timeseries", "stat", "table"
"""Kinds of panel, as Grafana calls them."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks, and how a series of the answer is called."""

    expression: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = TIMELINE
    width: int = 8
    red_above: float | None = None
    red_below: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a common title."""

    title: str
    panels: tuple[Panel, ...]


JOB = 'job=~"$job"'
TENANT = 'tenant=~"$tenant"'
TODAY, NOT_OK, HIT = 'days="1"', 'code!="OK"', 'result="hit"'
SHOWN, CLICKED = 'kind="shown"', 'kind="clicked"'


def of(metric: str, *matchers: str) -> str:
    """The series of a metric in the chosen jobs."""
    return f"{metric}{{{', '.join((JOB, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """A counter's rise a second."""
    return f"rate({of(metric, *matchers)}[$__rate_interval])"


def quantile(share: float, metric: str, *by: str) -> str:
    """A quantile of a histogram, by labels."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'{metric}_bucket')}))"


def short(expression: str) -> str:
    """The same series with the bare name of the method as `call`."""
    return f'label_replace({expression}, "call", "$1", "method", ".*/(.*)")'


FAULT = 'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"'
CALLS, TIMES = "genie_calls_total", "genie_call_duration_seconds"
OR_NONE = " or on() vector(0)"
"""What never happened has no series: shown as 0 rather than as no data."""


def rows() -> tuple[Row, ...]:
    """All panels."""
    return (_overview(), _calls(), _store(), _recommending(), _processes(), _experiments(), _learning())


def _overview() -> Row:
    recommend = f'{TIMES}_bucket{{job=~"$job", method="genie.v1.RecommendationService/Recommend"}}'
    p99 = f"histogram_quantile(0.99, sum by (le) (rate({recommend}[$__rate_interval])))"
    failed = f"(sum({rate(CALLS, FAULT)}){OR_NONE}) / sum({rate(CALLS)})"
    return Row(
        "At a glance",
        (
            Panel(
                "Processes that serve",
                "Workers and the experiment service that report SERVING.",
                (Query(f"sum({of('genie_serving')})"),),
                kind=STAT,
                width=4,
                red_below=1.0,
            ),
            Panel("Calls", "All methods.", (Query(f"sum({rate(CALLS)})"),), "reqps", STAT, 4),
            Panel(
                "Failed by the server",
                "Share of calls that ended INTERNAL, UNKNOWN, UNAVAILABLE or DATA_LOSS.",
                (Query(failed),),
                "percentunit",
                STAT,
                4,
                red_above=0.01,
            ),
            Panel("Recommend, p99", "In the server.", (Query(p99),), "s", STAT, 4, red_above=0.1),
            Panel(
                "Calls shed",
                "Refused to protect the server.",
                (Query(f"sum({rate('genie_calls_shed_total')}){OR_NONE}"),),
                "reqps",
                STAT,
                4,
                red_above=0.001,
            ),
            Panel(
                "Learners active today",
                "Learners with an answer today (UTC).",
                (Query(f"sum({of('genie_active_learners', TODAY, TENANT)})"),),
                kind=STAT,
                width=4,
            ),
        ),
    )


def _calls() -> Row:
    return Row(
        "Calls",
        (
            Panel(
                "Calls by method",
                "Calls that ended, streams and refused ones included.",
                (Query(short(f"sum by (method) ({rate(CALLS)})"), "{{call}}"),),
                "reqps",
            ),
            Panel(
                "Latency by method, p50",
                "Time in the server, waiting for a thread not included; unary calls.",
                (Query(short(quantile(0.5, TIMES, "method")), "{{call}}"),),
                "s",
            ),
            Panel(
                "Latency by method, p99",
                "Time in the server, waiting for a thread not included; unary calls.",
                (Query(short(quantile(0.99, TIMES, "method")), "{{call}}"),),
                "s",
            ),
            Panel(
                "Calls that failed",
                "By method and status; callers' own mistakes included.",
                (
                    Query(
                        short(f"sum by (method, code) ({rate(CALLS, NOT_OK)})") + OR_NONE,
                        "{{call}} {{code}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Calls shed",
                "Refused to protect the server, by the reason that the caller was told.",
                (Query(f"sum by (reason) ({rate('genie_calls_shed_total')}){OR_NONE}", "{{reason}}"),),
                "reqps",
            ),
            Panel(
                "Calls in flight and queued",
                "Taken and not finished, and of these waiting for a thread; beyond the limit calls are shed.",
                (
                    Query(f"sum by (pool) ({of('genie_calls_in_flight')})", "{{pool}} in flight"),
                    Query(f"sum by (pool) ({of('genie_calls_queued')})", "{{pool}} queued"),
                    Query(f"sum by (pool) ({of('genie_calls_limit')})", "{{pool}} limit"),
                ),
            ),
        ),
    )


def _store() -> Row:
    operations = "genie_store_group_operations"
    return Row(
        "Store",
        (
            Panel(
                "Commit time",
                "Of a group commit, waiting for the disk included.",
                (
                    Query(quantile(0.5, "genie_store_commit_seconds", "store"), "{{store}} p50"),
                    Query(quantile(0.99, "genie_store_commit_seconds", "store"), "{{store}} p99"),
                ),
                "s",
            ),
            Panel(
                "Group size",
                "Operations that shared a commit, on average.",
                (
                    Query(
                        f"sum by (store) ({rate(operations + '_sum')})"
                        f" / sum by (store) ({rate(operations + '_count')})",
                        "{{store}}",
                    ),
                ),
            ),
            Panel(
                "Commits",
                "Group commits, and those that failed as a whole.",
                (
                    Query(f"sum by (store) ({rate(operations + '_count')})", "{{store}}"),
                    Query(f"sum by (store) ({rate('genie_store_failures_total')})", "{{store}} failed"),
                ),
                "ops",
            ),
            Panel(
                "Room used",
                "Share of the size to which each store's file may grow.",
                (
                    Query(
                        f"max by (store) ({of('genie_store_used_bytes')} / {of('genie_store_limit_bytes')})",
                        "{{store}}",
                    ),
                ),
                "percentunit",
                width=12,
            ),
            Panel(
                "Bytes used",
                "In each store's file.",
                (Query(f"max by (store) ({of('genie_store_used_bytes')})", "{{store}}"),),
                "bytes",
                width=12,
            ),
        ),
    )


def _recommending() -> Row:
    cache = "genie_cache_requests_total"
    trained = f"time() - max by (tenant) ({of('genie_model_trained_time_seconds', TENANT)})"
    return Row(
        "Recommending",
        (
            Panel(
                "Cache hits",
                "Share of look-ups that found what they sought.",
                (
                    Query(
                        f"sum by (cache) ({rate(cache, HIT)}) / sum by (cache) ({rate(cache)})",
                        "{{cache}}",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Degraded recommendations",
                "Answered with less than all that the server can do, by reason.",
                (
                    Query(
                        f"sum by (reason) ({rate('genie_recommendations_degraded_total')}){OR_NONE}",
                        "{{reason}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Age of the model",
                "Since the model in use was trained; tenants on priors have none.",
                (Query(trained, "{{tenant}}"),),
                "s",
            ),
            Panel(
                "Models in use",
                "By tenant; priors where none was trained.",
                (Query(f"count by (tenant, version) ({of('genie_model_info', TENANT)})"),),
                kind=TABLE,
                width=16,
            ),
            Panel(
                "Models that cannot be used",
                "The newest model of the tenant failed to load, and the one before stands in.",
                (Query(f"max by (tenant) ({of('genie_model_failed', TENANT)})", "{{tenant}}"),),
            ),
        ),
    )


def _processes() -> Row:
    return Row(
        "Processes",
        (
            Panel("Processor", "Cores in use.", (Query(f"sum({rate('genie_cpu_seconds_total')})", "all"),)),
            Panel(
                "Memory",
                "Resident, shared maps included.",
                (Query(of("genie_resident_bytes"), "worker {{worker}}"),),
                "bytes",
            ),
            Panel(
                "Up since",
                "Time since each process started.",
                (Query(f"time() - {of('genie_start_time_seconds')}", "worker {{worker}}"),),
                "s",
            ),
        ),
    )


def _experiments() -> Row:
    return Row(
        "Experiments",
        (
            Panel(
                "Reports that wait",
                "Files of reports on their way to the experiment service; more than a few mean that it is away.",
                (Query(f"max({of('genie_experiment_spool_segments')})", "files"),),
                width=12,
            ),
            Panel(
                "Size of what waits",
                "At 1 GiB new reports are dropped.",
                (Query(f"max({of('genie_experiment_spool_bytes')})", "bytes"),),
                "bytes",
                width=12,
            ),
        ),
    )


def _learning() -> Row:
    def each(metric: str, *matchers: str) -> str:
        return f"sum({rate(metric, TENANT, *matchers)})"

    def hourly(metric: str) -> str:
        return f"sum(increase({of(metric, TENANT)}[1h]))"

    shown = each("genie_feedback_total", SHOWN)
    return Row(
        "Learning",
        (
            Panel("Answers", "Recorded.", (Query(each("genie_answers_total"), "answers"),), "cps"),
            Panel(
                "Answers that were right",
                "Share of those recorded.",
                (Query(f"{each('genie_answers_correct_total')} / {each('genie_answers_total')}", "right"),),
                "percentunit",
            ),
            Panel(
                "Recommendations",
                "Slates, and questions on them.",
                (
                    Query(each("genie_recommendations_total"), "slates"),
                    Query(each("genie_recommended_questions_total"), "questions"),
                ),
                "cps",
            ),
            Panel(
                "Click-through",
                "Clicked over shown, as callers report it.",
                (Query(f"{each('genie_feedback_total', CLICKED)} / {shown}", "clicked"),),
                "percentunit",
            ),
            Panel(
                "Feedback",
                "Events by kind.",
                (Query(f"sum by (kind) ({rate('genie_feedback_total', TENANT)})", "{{kind}}"),),
                "cps",
            ),
            Panel(
                "Active learners",
                "With an answer in the last 1, 7 and 30 days (UTC).",
                (Query(f"sum by (days) ({of('genie_active_learners', TENANT)})", "{{days}} days"),),
            ),
            Panel(
                "Mastery in an hour",
                "Times that learners came to master a concept, and lost it again.",
                (
                    Query(hourly("genie_concepts_mastered_total"), "mastered"),
                    Query(hourly("genie_concepts_lost_total"), "lost"),
                ),
            ),
            Panel(
                "Practice in an hour",
                "Time that answers took, as far as callers said.",
                (Query(hourly("genie_practice_seconds_total"), "practice"),),
                "s",
            ),
            Panel(
                "Streaks kept",
                "Share of streaks that could be carried on yesterday and were.",
                (Query(of("genie_streak_maintenance_ratio", TENANT), "{{tenant}}"),),
                "percentunit",
            ),
        ),
    )
