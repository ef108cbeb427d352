"""Days on a learner's own calendar: numbers from 1970-01-01, by IANA time zone. Knows no learner."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

DEFAULT_TIME_ZONE = "UTC"
_EPOCH = date(1970, 1, 1)
_EPOCH_ORDINAL = _EPOCH.toordinal()


@lru_cache(maxsize=1024)
def zone_of(time_zone: str) -> ZoneInfo:
    """The zone of an IANA name; UTC for a name that this machine's database does not hold (any more)."""
    try:
        return ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        return ZoneInfo(DEFAULT_TIME_ZONE)


def local_day(seconds: float, time_zone: str) -> int:
    """The day number of a moment (epoch seconds)."""
    return datetime.fromtimestamp(seconds, zone_of(time_zone)).date().toordinal() - _EPOCH_ORDINAL


def local_days(seconds: Sequence[float], time_zone: str) -> list[int]:
    """The day numbers of many moments."""
    zone = zone_of(time_zone)
    return [datetime.fromtimestamp(at, zone).date().toordinal() - _EPOCH_ORDINAL for at in seconds]


def local_hour(seconds: float, time_zone: str) -> int:
    """The hour of the day, 0 to 23, of a moment."""
    return datetime.fromtimestamp(seconds, zone_of(time_zone)).hour


@lru_cache(maxsize=4096)
def day_start(day: int, time_zone: str) -> float:
    """Epoch seconds at which a day begins."""
    begins = datetime.combine(_EPOCH + timedelta(days=day), datetime.min.time(), zone_of(time_zone))
    return begins.timestamp()
