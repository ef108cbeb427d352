"""Days by time zone, daylight saving and unknown names included."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from server.local_days import day_start, local_day, local_days, local_hour, zone_of


@pytest.mark.parametrize(
    ("text", "zone", "day", "hour"),
    [
        ("1970-01-01T00:00", "UTC", 0, 0),
        ("1970-01-02T00:30", "Asia/Tokyo", 1, 0),
        ("2024-03-31T23:59", "Europe/Berlin", 19_813, 23),
        ("2024-11-03T01:30", "America/New_York", 20_030, 1),
    ],
)
def test_a_moment_falls_on_the_calendars_day(text: str, zone: str, day: int, hour: int) -> None:
    at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()
    assert (local_day(at, zone), local_hour(at, zone)) == (day, hour)
    assert local_days([at, at + 86_400.0], zone) == [day, local_day(at + 86_400.0, zone)]


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kathmandu"]
)
def test_a_day_begins_where_the_one_before_ends(zone: str) -> None:
    for day in range(19_700, 20_100):
        begins = day_start(day, zone)
        assert local_day(begins, zone) == day
        assert local_day(begins - 1.0, zone) == day - 1


def test_a_zone_nobody_knows_counts_as_utc() -> None:
    for name in ("Mars/Base", "", "../etc/passwd", "a\0b"):
        assert zone_of(name).key == "UTC"
