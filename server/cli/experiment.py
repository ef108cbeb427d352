"""`genie experiment`: create, start, stop, list, look at, watch and report experiments. Decides nothing itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import Parse, ParseError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import experiment_service_pb2_grpc
from server.cli.client import connection, metadata, print_message, tls_option
from server.cli.failures import writing
from server.cli.tenant import tenant_option
from server.experiments import words
from server.experiments.live import view
from server.experiments.report_page import report_page

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TARGET = "127.0.0.1:50052"
TIMEOUT_SECONDS = 10.0


class _Caller(NamedTuple):
    """Where the service is, and whose experiments are meant."""

    target: str
    tenant: str
    tls_ca_file: Path | None

    @contextmanager
    def stub(self) -> Iterator[experiment_service_pb2_grpc.ExperimentServiceStub]:
        """A stub; a call that fails ends the command with the reason in words."""
        with connection(self.target, self.tls_ca_file) as channel:
            yield experiment_service_pb2_grpc.ExperimentServiceStub(channel)

    @property
    def call(self) -> dict[str, Any]:
        """What every call is given."""
        return {"timeout": TIMEOUT_SECONDS, "metadata": metadata(self.tenant)}


@click.group(name="experiment")
@click.option(
    "--target", default=DEFAULT_TARGET, show_default=True, help="host:port of the experiment service."
)
@tenant_option("Whose experiments.")
@tls_option
@click.pass_context
def command(ctx: click.Context, target: str, tenant: str, tls_ca_file: Path | None) -> None:
    """Create, start, stop, watch and report experiments. EXPERIMENT is an id, or a name."""
    ctx.obj = _Caller(target, tenant, tls_ca_file)


@command.command()
@click.argument("name")
@click.option("--hypothesis", default="", help="What it is meant to show.")
@click.option("--control", default="content_based_v1", show_default=True, help="Control's algorithm.")
@click.option(
    "--treatment",
    "treatments",
    multiple=True,
    default=("collaborative_filtering_v2",),
    show_default=True,
    help="A treatment's algorithm; give it again for more arms.",
)
@click.option("--metric", default="practice_minutes", show_default=True, help="The metric to decide on.")
@click.option("--target-improvement", default=15.0, show_default=True, help="Per cent worth having.")
@click.option("--days", default=30, show_default=True, help="Planned duration.")
@click.option("--split", default="", help="Share of each arm, with commas between; even when not given.")
@click.option("--secondary", multiple=True, help="A metric to look at beside.")
@click.option("--guardrail", "guardrails", multiple=True, help="METRIC=MARGIN%: not to be harmed further.")
@click.option("--sample", default=0, help="Learners of control and a treatment; planned when not given.")
@click.option(
    "--fields",
    "fields_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="JSON with fields of CreateExperimentRequest: ramp, layer, baseline, metric_definitions, …",
)
@click.option("--start", "start_now", is_flag=True, help="Start it at once.")
@click.pass_obj
def create(
    caller: _Caller,
    name: str,
    hypothesis: str,
    control: str,
    treatments: tuple[str, ...],
    metric: str,
    target_improvement: float,
    days: int,
    split: str,
    secondary: tuple[str, ...],
    guardrails: tuple[str, ...],
    sample: int,
    fields_file: Path | None,
    start_now: bool,
) -> None:
    """Write an experiment down and plan its sample."""
    request = pb.CreateExperimentRequest(
        name=name,
        hypothesis=hypothesis,
        control_algorithm=control,
        treatment_algorithm=treatments[0],
        more_treatment_algorithms=treatments[1:],
        primary_metric=metric,
        target_improvement_percent=target_improvement,
        duration_days=days,
        traffic_split=_split(split),
        secondary_metrics=secondary,
        guardrails=map(_guardrail, guardrails),
        planned_sample=sample,
    )
    if fields_file is not None:
        request.MergeFrom(_fields(fields_file))
    with caller.stub() as stub:
        made = stub.CreateExperiment(request, **caller.call).experiment
        if start_now:
            starting = pb.StartExperimentRequest(experiment_id=made.experiment_id)
            made = stub.StartExperiment(starting, **caller.call).experiment
    _say(made)


@command.command()
@click.argument("experiment")
@click.pass_obj
def start(caller: _Caller, experiment: str) -> None:
    """Start a draft."""
    with caller.stub() as stub:
        request = pb.StartExperimentRequest(experiment_id=_find(caller, stub, experiment).experiment_id)
        _say(stub.StartExperiment(request, **caller.call).experiment)


@command.command()
@click.argument("experiment")
@click.option("--reason", default="", help="Why, in words.")
@click.pass_obj
def stop(caller: _Caller, experiment: str, reason: str) -> None:
    """End a running experiment."""
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.StopExperimentRequest(experiment_id=found.experiment_id, reason=reason)
        _say(stub.StopExperiment(request, **caller.call).experiment)


@command.command()
@click.argument("experiment")
@click.argument("split")
@click.pass_obj
def split(caller: _Caller, experiment: str, split: str) -> None:
    """Spread learners over the arms as SPLIT says (shares with commas between): opens a new phase."""
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.ChangeSplitRequest(experiment_id=found.experiment_id, traffic_split=_split(split))
        _say(stub.ChangeSplit(request, **caller.call).experiment)


@command.command(name="list")
@click.option("--active", is_flag=True, help="Only those that run.")
@click.pass_obj
def list_(caller: _Caller, active: bool) -> None:
    """List experiments."""
    table = Table()
    for title in ("id", "name", "state", "arms", "metric", "planned"):
        table.add_column(title, overflow="fold")
    with caller.stub() as stub:
        for found in _all(caller, stub, active=active):
            table.add_row(
                found.experiment_id,
                found.name,
                words.state(found.state),
                " / ".join(arm.name for arm in found.arms),
                found.metrics[0].definition.name,
                f"{found.duration_days} days, {found.sample_plan.planned_sample} learners",
            )
    Console().print(table)


@command.command()
@click.argument("experiment")
@click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")
@click.pass_obj
def results(caller: _Caller, experiment: str, as_json: bool) -> None:
    """Look at an experiment now."""
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.GetResultsRequest(experiment_id=found.experiment_id)
        reply = stub.GetResults(request, **caller.call)
    if as_json:
        print_message(reply)
    else:
        Console().print(view(found, reply.results))


@command.command()
@click.argument("experiment")
@click.option("--interval", default=0.5, show_default=True, help="Seconds between two changes at least.")
@click.option("--updates", default=0, help="End after so many; 0 goes on until it has ended.")
@click.pass_obj
def watch(caller: _Caller, experiment: str, interval: float, updates: int) -> None:
    """Watch an experiment live. Ctrl-C ends it."""
    pause = Duration()
    pause.FromMilliseconds(round(interval * 1e3))
    console = Console()
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.WatchResultsRequest(experiment_id=found.experiment_id, min_interval=pause)
        stream = stub.WatchResults(request, metadata=metadata(caller.tenant))
        try:
            with Live(console=console, auto_refresh=False) as live:
                for number, message in enumerate(stream, 1):
                    live.update(view(found, message.results), refresh=True)
                    if number == updates:
                        stream.cancel()
                        break
        except KeyboardInterrupt:
            stream.cancel()
        finally:
            if not console.is_terminal:
                # What was drawn last ends its line only on a terminal.
                console.line()


@command.command()
@click.argument("experiment")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="The file to write; folders are made.",
)
@click.pass_obj
def report(caller: _Caller, experiment: str, output: Path | None) -> None:
    """Write a page with plots that needs nothing but a browser."""
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.GetResultsRequest(experiment_id=found.experiment_id, include_history=True)
        reply = stub.GetResults(request, **caller.call)
    path = output or Path(f"{found.experiment_id}.html")
    with writing(path):
        path.write_text(report_page(found, reply), encoding="utf-8")
    click.echo(f"Wrote {path}")


@command.command()
@click.argument("experiment")
@click.argument("learner")
@click.pass_obj
def reports(caller: _Caller, experiment: str, learner: str) -> None:
    """List what an experiment holds of LEARNER, and which calls it came from."""
    table = Table()
    for title in ("time", "what", "value", "over", "report", "correlation id"):
        table.add_column(title, justify="right" if title in ("value", "over") else "left", overflow="fold")
    with caller.stub() as stub:
        found = _find(caller, stub, experiment)
        request = pb.ListReportsRequest(experiment_id=found.experiment_id, learner_id=learner)
        while True:
            page = stub.ListReports(request, **caller.call)
            for report in page.reports:
                when = f"{report.event_time.ToDatetime():%Y-%m-%d %H:%M:%S}"
                table.add_row(when, *_told(report), report.report_id, report.correlation_id)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    Console().print(table)


def _told(report: pb.Report) -> tuple[str, str, str]:
    """What happened, and the value over the denominator when there are any."""
    if report.HasField("exposure"):
        kind = "assigned" if report.exposure.assigned_only else "exposed"
        return f"{kind}: {report.exposure.arm}", "", ""
    value = report.metric_value
    return value.source, f"{value.value:g}", f"{value.denominator:g}" if value.denominator else ""


def _find(caller: _Caller, stub: Any, wanted: str) -> resources.Experiment:
    """The experiment with this id, else the one with this name."""
    try:
        request = pb.GetExperimentRequest(experiment_id=wanted)
        found: resources.Experiment = stub.GetExperiment(request, **caller.call).experiment
        return found
    except grpc.RpcError as error:
        for named in _all(caller, stub, active=False):
            if named.name == wanted:
                return named
        raise error


def _all(caller: _Caller, stub: Any, *, active: bool) -> Iterator[resources.Experiment]:
    request = pb.ListExperimentsRequest(active_only=active)
    while True:
        page = stub.ListExperiments(request, **caller.call)
        yield from page.experiments
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _fields(path: Path) -> pb.CreateExperimentRequest:
    try:
        return Parse(path.read_text(encoding="utf-8"), pb.CreateExperimentRequest())
    except (ParseError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} holds no fields of CreateExperimentRequest: {error}") from None


def _split(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.BadParameter(f"{text!r} must be numbers with commas between, such as 0.5,0.5") from None


def _guardrail(text: str) -> resources.Guardrail:
    metric, _, margin = text.partition("=")
    try:
        return resources.Guardrail(metric=metric, margin_percent=float(margin.rstrip("%") or 0.0))
    except ValueError:
        raise click.BadParameter(f"{text!r} must be METRIC=MARGIN%, such as accuracy=2%") from None


def _say(found: resources.Experiment) -> None:
    plan = found.sample_plan
    basis = resources.SamplePlanBasis.Name(plan.basis).removeprefix("SAMPLE_PLAN_BASIS_").lower()
    click.echo(f"{found.experiment_id}  {found.name}: {words.state(found.state)}")
    for phase in found.phases[-1:]:
        for arm, weight in zip(found.arms, phase.weights, strict=True):
            click.echo(f"  {weight:6.1%}  {arm.name}")
    click.echo(
        f"  needs {plan.planned_sample} learners in two arms (from {basis}), "
        f"in {words.days(plan, 'needed_duration')}; "
        f"planned for {found.duration_days} days, to see {found.target_improvement_percent:g} %"
    )
