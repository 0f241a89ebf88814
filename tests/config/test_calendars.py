"""Schedules with holidays, from the file to the windows that the gateway keeps to."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from router.config import load
from router.queues import windows_of
from rules.rule import Received, leaves_of
from rules.words import windows_words

TEXT = """\
timezone: Europe/Stockholm
local: [{{ae_title: A, listen: "127.0.0.1:104", accept: any}}]
remotes: {{p: {{ae_title: P, host: p.example}}}}
schedules:
  office: {{open: ["mon-fri 08:00-17:00"], holidays: days.txt, on_holidays: {what}}}
rules: [{{name: x, to: p, send: {{schedule: office}}, when: {{received: {{in: office}}}}}}]
"""


def _at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Stockholm")).timestamp()


@pytest.mark.parametrize(
    ("what", "hours"),
    [("closed", (False, False)), ("open", (True, True)), ("10:00-14:00", (False, True))],
)
def test_what_a_holiday_changes(what: str, hours: tuple[bool, bool], tmp_path: Path) -> None:
    (tmp_path / "days.txt").write_text("2099-06-19 midsummer\n12-25\n")
    file = tmp_path / "c.yaml"
    file.write_text(TEXT.format(what=what))
    loaded = load(file, {})
    assert not loaded.warnings
    office = windows_of(loaded.config)["office"]
    assert (
        office.open_at(_at("2026-12-25T09:00")),
        office.open_at(_at("2026-12-25T11:00")),
    ) == hours
    assert office.open_at(_at("2026-12-24T09:00"))
    received = list(leaves_of(loaded.rules.rules[0].condition))
    assert received == [Received(office)], "rules and gates keep to the same"
    assert windows_words(office).endswith("(Europe/Stockholm, others on holidays)")


def test_another_file_of_holidays_is_another_configuration(tmp_path: Path) -> None:
    file, days = tmp_path / "c.yaml", tmp_path / "days.txt"
    file.write_text(TEXT.format(what="closed"))
    days.write_text("2099-12-25\n")
    before = load(file, {})
    assert load(file, {}).config == before.config
    days.write_text("2099-12-26\n")
    after = load(file, {})
    assert after.config != before.config
    assert after.rules.version != before.rules.version


def test_holidays_that_are_all_over_are_told(tmp_path: Path) -> None:
    (tmp_path / "days.txt").write_text("2019-12-25\n2020-12-25\n")
    file = tmp_path / "c.yaml"
    file.write_text(TEXT.format(what="closed"))
    (warning,) = load(file, {}).warnings
    assert warning.line == 5
    assert warning.message == "schedule 'office': its last holiday was 2020-12-25"


@pytest.mark.parametrize(
    ("windows", "told"),
    [
        ('["2020-12-24 08:00-12:00", "2021-01-05..2021-01-06 08:00-12:00"]', True),
        ('["2020-12-24 08:00-12:00", "sat 08:00-12:00"]', False),
        ('["2020-12-24 08:00-12:00", "2099-01-05 08:00-12:00"]', False),
    ],
)
def test_a_schedule_that_never_opens_again_is_told(
    windows: str, told: bool, tmp_path: Path
) -> None:
    text = TEXT.format(what="closed").replace(
        '["mon-fri 08:00-17:00"], holidays: days.txt', windows
    )
    file = tmp_path / "c.yaml"
    file.write_text(text.replace(", on_holidays: closed", ""))
    found = [w.message for w in load(file, {}).warnings if "never opens again" in w.message]
    expected = "schedule 'office' never opens again: its last day was 2021-01-06"
    assert found == ([expected] if told else [])
