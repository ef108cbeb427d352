"""What the parts of `genie doctor` find, each one look at one thing. Looks at nothing itself."""

from typing import Literal, NamedTuple

OK: Literal["ok"] = "ok"
WARNING: Literal["warning"] = "warning"
PROBLEM: Literal["problem"] = "problem"
FULL_SHARE = 0.8
"""Beyond this, what has a bound is worth a word."""


class Finding(NamedTuple):
    """What one look at one thing showed."""

    about: str
    state: Literal["ok", "warning", "problem"]
    seen: str
    advice: str = ""
    """What to do; empty when all is well."""
