"""Windows of single dates, at a time, at intervals, and on holidays; over years, in many zones."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from time import perf_counter

import pytest

from rules.holidays import parse_holidays
from rules.window import Dated, Holidays, Span, Windows, parse_spans, parse_windows, zone_of

ZONES = (
    "Europe/Stockholm",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of daylight saving, in the south
    "America/Asuncion",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "UTC",
)
ALL = tuple(range(7))


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        (
            "2026-02-30 1:00-2:00",
            "'2026-02-30 1:00-2:00': '2026-02-30' is not a date",
            "write year",
        ),
        ("2026-12-24", "'2026-12-24' has no time of day", 'write "2026-12-24 00:00-24:00"'),
        (
            "2026-12-24..2026-12-20 1:00-2:00",
            "'2026-12-24..2026-12-20 1:00-2:00' ends",
            "write the",
        ),
        ("2026-12-24 mon 1:00-2:00", "'2026-12-24 mon 1:00-2:00' has a date and a day", "leave"),
        ("2026-12-24 1:00-1:00", "'1:00-1:00' begins and ends at the same minute", "write 00:00"),
        ("24.12.2026 1:00-2:00", "'24.12.2026 1:00-2:00' is not a window", "write"),
        ("at 19", "'at 19': '19' is not a time of day", "write it as 18:00"),
        ("at 24:00", "'at 24:00': a window begins at 00:00", ""),
        ("at 19:00 for 24h", "'at 19:00 for 24h': '24h' is no length", "write it in minutes"),
        ("at 19:00 for 90s", "'at 19:00 for 90s': '90s' is no length", "write it in minutes"),
        ("at 19:00 for ever", "'at 19:00 for ever': 'ever' is no length", "write it in minutes"),
        ("at 19:00 for 0m", "'at 19:00 for 0m': '0m' is no length", "write it in minutes"),
        ("mo at 19:00", "'mo at 19:00': 'mo' is not a day", "did you mean 'mon'?"),
        ("every 7h", "'every 7h': '7h' does not divide a day", "write 5m"),
        ("every 2h for 2h", "'every 2h for 2h' would never close", "say for how long"),
        ("every 10m", "'every 10m' would never close", "say for how long"),
        ("every day 1:00-2:00", "'every day 1:00-2:00': 'every' is not a day", "days are"),
    ],
)
def test_what_is_no_window(text: str, message: str, fix: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_spans(text)
    said, mended = caught.value.args
    assert said.startswith(message)
    assert mended.startswith(fix)


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("at 19:00", [Span(ALL, 1140, 1200)]),
        ("mon-fri at 19:00 for 2h", [Span((0, 1, 2, 3, 4), 1140, 1260)]),
        ("sat, sun at 23:30 for 1.5h", [Span((5, 6), 1410, 60)]),
        ("at 23:00", [Span(ALL, 1380, 1440)]),
        ("every 12h for 30m", [Span(ALL, 0, 30), Span(ALL, 720, 750)]),
        ("mon every 8h", [Span((0,), n, n + 10) for n in (0, 480, 960)]),
        ("2026-12-24 12:00-24:00", [Dated(day("2026-12-24"), day("2026-12-24"), 720, 1440)]),
        ("2026-12-24 .. 2027-01-02 at 8:00 for 30m",
         [Dated(day("2026-12-24"), day("2027-01-02"), 480, 510)]),
    ],
)  # fmt: skip
def test_what_is_one(text: str, spans: list[Span | Dated]) -> None:
    assert parse_spans(text) == spans


@pytest.mark.parametrize(
    ("data", "where", "message"),
    [
        (b"", 0, "has no dates"),
        (b"# none\n\n", 0, "has no dates"),
        (b"2026-12-25\n25.12.2026\n", 2, "'25.12.2026' is not a date"),
        (b"2026-02-29", 1, "'2026-02-29' is not a date"),
        (b"13-01", 1, "'13-01' is not a date"),
        (b"2026-12-25x", 1, "'2026-12-25x' is not a date"),
        (b"2026-12-25\n\xff\n", 2, "is not UTF-8"),
        (b"#" * (1 << 20) + b"#", 0, "is larger than 1 MiB"),
        (b"".join(b"%04d-01-%02d\n" % (y, d) for y in range(1, 500) for d in range(1, 29)), 0,
         "has more than 10000 dates"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_holidays(data: bytes, where: int, message: str) -> None:
    (problem,) = parse_holidays(data, "days.txt").problems
    assert (problem.file, problem.line) == ("days.txt", where)
    assert problem.message == message


def test_what_is_one_file() -> None:
    text = "\ufeff# 2026\r\n2026-12-25 Christmas\r\n2026-06-19;midsummer\n\n 12-26\n02-29 # leap\n"
    read = parse_holidays(text.encode(), "days.txt")
    assert read.dates == {day("2026-12-25"), day("2026-06-19")}
    assert read.yearly == {(12, 26), (2, 29)}
    assert not read.problems


def closed(*dates: str, yearly: tuple[tuple[int, int], ...] = ()) -> Holidays:
    return Holidays(frozenset(map(day, dates)), frozenset(yearly))


def _at(zone: str, text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone)).timestamp()


def test_a_window_is_that_of_the_day_on_which_it_begins() -> None:
    zone = "Europe/Stockholm"
    shut = parse_windows(["18:00-07:00", "2026-12-24 12:00-13:00"], zone, closed("2026-12-24"))
    open_all_day = Holidays(frozenset({day("2026-12-24")}), spans=(Span(ALL, 0, 1440),))
    held = parse_windows(["18:00-07:00"], zone, open_all_day)
    hours = ("24T06:59", "24T07:00", "24T12:30", "24T18:30", "25T00:30", "25T06:00", "25T18:30")
    moments = [_at(zone, f"2026-12-{hour}") for hour in hours]
    assert [shut.open_at(m) for m in moments] == [True, False, True, False, False, False, True]
    assert [held.open_at(m) for m in moments] == [True, True, True, True, False, False, True]


def slow(open_on: Callable[[date], list[tuple[int, int]]], moment: float, zone: str) -> bool:
    """Whether a window of that day, or of the one before, holds the clock on the wall."""
    local = datetime.fromtimestamp(moment, UTC).astimezone(zone_of(zone))
    minute = local.hour * 60 + local.minute
    today = [(s, e if e > s else e + 1440) for s, e in open_on(local.date())]
    before = [(s, e if e > s else e + 1440) for s, e in open_on(local.date() - timedelta(days=1))]
    return any(s <= minute < e for s, e in today) or any(s <= minute + 1440 < e for s, e in before)


SCHEDULES: list[tuple[list[str], Holidays | None]] = [
    (["mon-fri 18:00-07:00", "sat-sun 00:00-24:00"], None),
    (["at 19:00 for 2h"], None),
    (["every 4h for 20m"], None),
    (["mon at 02:30 for 30m"], None),
    (
        ["2026-03-29 01:00-04:00", "2026-10-25 01:00-04:00", "2026-12-24..2027-01-06 22:00-2:00"],
        None,
    ),
    (["00:00-24:00"], closed("2026-01-06", "2026-04-05", yearly=((12, 25), (2, 29)))),
    (
        ["mon-fri 07:00-17:00"],
        Holidays(frozenset({day("2026-05-01")}), frozenset({(1, 1)}), (Span(ALL, 600, 840),)),
    ),
    (
        ["mon-fri 17:00-07:00"],
        Holidays(frozenset({day("2026-05-14")}), frozenset({(6, 6)}), (Span(ALL, 0, 1440),)),
    ),
]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule[0][0])
def test_a_year_in_every_zone(schedule: tuple[list[str], Holidays | None], zone: str) -> None:
    """Each change is one by the plainest reckoning there is, and nothing changes in between."""
    texts, holidays = schedule
    windows = parse_windows(texts, zone, holidays)

    def open_on(when: date) -> list[tuple[int, int]]:
        known = holidays is not None and holidays.has(when.toordinal())
        spans = holidays.spans if known and holidays is not None else windows.spans
        found = [(s.start, s.end) for s in spans if known or when.weekday() in s.days]
        dated = [d for d in windows.dated if d.first <= when.toordinal() <= d.last]
        return found + [(d.start, d.end) for d in dated]

    chance = Random(7)
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + 0.5
    end = moment + 370 * 86400
    state = slow(open_on, moment, zone)
    assert windows.open_at(moment) is state
    changes = 0
    while moment < end:
        change = windows.next_change(moment)
        if change is None:
            change = end
        else:
            state = not state
            changes += 1
            assert slow(open_on, change, zone) is state
            assert slow(open_on, change - 0.001, zone) is not state
        limit = min(change, end)
        for _ in range(2):
            between = moment + (limit - moment) * chance.random() * 0.9999
            assert slow(open_on, between, zone) is windows.open_at(between)
            assert windows.open_at(between) is windows.open_at(moment)
        moment = change
    assert changes >= 4


def test_a_day_far_away_is_found() -> None:
    windows = parse_windows(["2031-02-03 10:00-11:00"], "Europe/Stockholm")
    now = _at("Europe/Stockholm", "2026-01-01T00:00")
    first = windows.next_change(now)
    assert first == _at("Europe/Stockholm", "2031-02-03T10:00")
    assert windows.next_change(first) == _at("Europe/Stockholm", "2031-02-03T11:00")
    assert windows.next_change(first + 3600) is None


def test_holidays_that_hide_every_monday_of_a_month_hide_no_later_one() -> None:
    mondays = [str(date(2026, 6, 1) + timedelta(weeks=n)) for n in range(6)]
    windows = parse_windows(["mon 08:00-09:00"], "UTC", closed(*mondays))
    assert windows.next_change(_at("UTC", "2026-05-26T00:00")) == _at("UTC", "2026-07-13T08:00")


def test_a_leap_day_of_every_year() -> None:
    windows = parse_windows(["00:00-24:00"], "UTC", closed(yearly=((2, 29),)))
    assert windows.next_change(_at("UTC", "2026-01-01T00:00")) == _at("UTC", "2028-02-29T00:00")


@pytest.mark.parametrize("last", ["2999-12-31", "9999-12-30", "9999-12-31"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_dates_up_to_the_end_of_time(last: str, zone: str) -> None:
    open_at_all_times = parse_windows([f"2026-01-01..{last} 00:00-24:00"], zone)
    by_day = parse_windows([f"2026-12-24..{last} 08:00-18:00"], zone)
    now = _at(zone, "2026-06-01T00:00")
    change = open_at_all_times.next_change(now)
    assert change == (_at(zone, "3000-01-01T00:00") if last < "9999" else None)
    assert by_day.next_change(now) == _at(zone, "2026-12-24T08:00")


@pytest.mark.timed
@pytest.mark.parametrize("last", ["2999-12-31", "9999-12-30", "9999-12-31"])
def test_dates_up_to_the_end_of_time_cost_no_more_than_a_day(last: str) -> None:
    began = perf_counter()
    test_dates_up_to_the_end_of_time(last, "Pacific/Kiritimati")
    assert perf_counter() - began < 1, "thousands of years were looked through day by day"


def test_a_weekday_that_is_open_but_for_a_range_of_dates_is_found_behind_it() -> None:
    windows = parse_windows(["mon 08:00-09:00", "2026-06-01..2027-06-01 00:00-24:00"], "UTC")
    assert windows.next_change(_at("UTC", "2026-07-01T00:00")) == _at("UTC", "2027-06-02T00:00")
    shut = _at("UTC", "2027-06-03T00:00")
    assert windows.next_change(shut) == _at("UTC", "2027-06-07T08:00")


def test_what_is_the_same_and_what_was_the_same_before() -> None:
    plain = parse_windows(["1:00-2:00"], "UTC")
    assert plain.canonical() == ["UTC", [[list(ALL), 60, 120]]]
    assert parse_windows(["at 1:00"], "UTC").canonical() == plain.canonical()
    others = [
        parse_windows(["1:00-2:00", "2026-12-24 3:00-4:00"], "UTC"),
        parse_windows(["1:00-2:00"], "UTC", closed("2026-12-24")),
        parse_windows(
            ["1:00-2:00"], "UTC", Holidays(closed("2026-12-24").dates, spans=plain.spans)
        ),
    ]
    texts = [str(windows.canonical()) for windows in (plain, *others)]
    assert len(set(texts)) == 4


def test_what_dates_decide_is_not_called_apart() -> None:
    day_time, night = (parse_windows([text], "UTC") for text in ("8:00-9:00", "20:00-21:00"))
    assert day_time.apart(night)
    assert not day_time.apart(parse_windows(["2026-12-24 8:00-9:00"], "UTC"))
    assert not Windows(day_time.spans, holidays=closed("2026-12-24")).apart(night)
