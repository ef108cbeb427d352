"""The configuration page lists exactly the settings there are."""

import re
import tomllib
from pathlib import Path

from engine.policy import load_policies
from server.config import SettingInfo, settings_info

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def row(info: SettingInfo) -> str:
    """The line of the page's table for a setting."""
    shown = {True: "on", False: "off"}.get(info.default) if info.kind is bool else str(info.default)
    return f"| `{info.name}` | {f'`{shown}`' if shown else ''} | {info.bound} | {info.about} |"


def test_the_page_lists_every_setting_as_it_is() -> None:
    lines = PAGE.read_text(encoding="utf-8").split("## All settings")[1].split("## ")[0].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [row(info) for info in settings_info()]


def test_the_policy_on_the_page_can_be_used() -> None:
    (example,) = re.findall(r"```toml\n(\[exam_week\].*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    policy = load_policies(tomllib.loads(example))["exam_week"]
    assert (policy.temperature, policy.target_success, policy.target_reach) == (0.05, 0.8, 0.0)
    assert policy.weight("retention") == 0.3
    assert policy.quota("exploration") == 0
    assert policy.weight("gain") == load_policies({})["hybrid_v1"].weight("gain")
