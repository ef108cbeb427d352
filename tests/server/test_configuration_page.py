"""The configuration page lists exactly the settings there are."""

from pathlib import Path

from server.config import SettingInfo, settings_info

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def row(info: SettingInfo) -> str:
    """The line of the page's table for a setting."""
    shown = {True: "on", False: "off"}.get(info.default) if info.kind is bool else str(info.default)
    return f"| `{info.name}` | {f'`{shown}`' if shown else ''} | {info.bound} | {info.about} |"


def test_the_page_lists_every_setting_as_it_is() -> None:
    lines = PAGE.read_text(encoding="utf-8").split("## All settings")[1].split("## ")[0].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [row(info) for info in settings_info()]
