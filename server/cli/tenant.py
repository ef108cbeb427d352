"""The option that says whose data a command is about, by the server's own rule for names. Looks nothing up."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from server.validate import TENANT, TENANT_RULE

F = TypeVar("F", bound=Callable[..., Any])


def tenant_option(about: str) -> Callable[[F], F]:
    """Give a command --tenant; a name that no call could carry is refused before anything is done."""
    return click.option("--tenant", default="default", show_default=True, callback=_checked, help=about)


def _checked(_: click.Context, __: click.Parameter, value: str) -> str:
    if TENANT.fullmatch(value) is None:
        raise click.BadParameter(f"must be {TENANT_RULE}")
    return value
