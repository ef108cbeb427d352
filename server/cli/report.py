"""`genie report`: a day or a week of every learner as JSONL, and of all of them as a page. Changes no data."""

import time
from datetime import date, datetime
from pathlib import Path

import click

from server import convert
from server.cli.data import CONSOLE, data_options, data_settings, opened, writing
from server.local_days import DEFAULT_TIME_ZONE
from server.message_json import json_line
from server.model_parts import model_source
from server.reporting import PAGE_LEARNERS, write_reports
from server.services.reports import DAY_SPAN, WEEK_SPAN, Period
from server.tenants import Tenants

_SPANS = {"daily": DAY_SPAN, "weekly": WEEK_SPAN}


@click.command(name="report")
@click.argument("span", type=click.Choice(list(_SPANS)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--date",
    "last_date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Last day of the report.  [default: the last that is over in UTC]",
)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only learners with this label; repeatable."
)
@click.option(
    "--page-learners",
    type=click.IntRange(min=0),
    default=PAGE_LEARNERS,
    show_default=True,
    help="Learners whose part is on the page; the JSONL file holds all.",
)
@data_options
def command(
    span: str,
    directory: Path,
    last_date: datetime | None,
    labels: tuple[str, ...],
    page_learners: int,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Write reports on a day or on seven days to DIRECTORY: SPAN-DATE.jsonl and SPAN-DATE.html.

    Days are each learner's own. The JSONL file has a `LearnerReport` a line, as protobuf writes JSON; the page is about
    all of them, holds everything that it shows, and has a path for the next week. The server may be running.
    """
    settings = data_settings(config_file, data_directory)
    now = time.time()
    wanted = frozenset(_label(label) for label in labels)
    with opened(settings) as stores:
        current_model, load_models = model_source(settings.data_directory, stores.state)
        tenants = Tenants(stores.state, current_model=current_model, load_models=load_models)
        try:
            bundle = tenants.bundle(tenant, fresh=True)
        finally:
            tenants.close()
        period = _period(last_date, now, _SPANS[span])
        day = convert.calendar_date(period.last)
        stem = f"{span}-{date(day.year, day.month, day.day).isoformat()}"
        jsonl, page = directory / f"{stem}.jsonl", directory / f"{stem}.html"
        with writing(jsonl, page), CONSOLE.status("") as status:
            written = write_reports(
                stores.state,
                tenant,
                bundle,
                period,
                now=now,
                jsonl=jsonl,
                page=page,
                title=f"{span.capitalize()} report",
                labels=wanted,
                page_learners=page_learners,
                progress=lambda learners: status.update(f"{learners:,} learners"),
            )
    if as_json:
        click.echo(json_line(written.report))
        return
    report = written.report
    click.echo(
        f"{report.learners_count:,} learners, {report.active_learners_count:,} of them active, to {jsonl}"
    )
    click.echo(f"the page, with {written.learners_on_page:,} of them, to {page}")


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{text!r} is not written KEY=VALUE", param_hint="--label")
    return key, value


def _period(last_date: datetime | None, now: float, span: int) -> Period:
    if last_date is None:
        return Period.over(now, DEFAULT_TIME_ZONE, span)
    last = (last_date.date() - date(1970, 1, 1)).days
    if not 0 <= last <= Period.over(now, DEFAULT_TIME_ZONE, span).last + 2:
        raise click.BadParameter("must be from 1970 to tomorrow", param_hint="--date")
    return Period.ending(last, span)
