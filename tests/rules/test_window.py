"""Windows of time: what is written, when they are open, when that changes next."""

from datetime import UTC, datetime, timedelta

import pytest

from rules.window import Span, Windows, check_zone, parse_span, parse_windows, zone_of

ZONES = ("Europe/Stockholm", "America/New_York", "Australia/Lord_Howe")
TEXTS = (
    ("mon-fri 18:00-07:00", "sat-sun 00:00-24:00"),
    ("02:15-02:45",),
    ("01:00-02:30",),
    ("sun 02:10-02:20",),
    ("fri-mon 23:59-00:01",),
    ("22:00-06:00", "12:00-13:00"),
)


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "'' is not a window of time", 'write "mon-fri 18:00-07:00"'),
        ("always", "'always' is not a window of time", 'write "mon-fri 18:00-07:00"'),
        ("18-7", "'18-7': '18' is not a time of day", "write it as 18:00"),
        ("18:00", "'18:00' is not a window of time", 'write "mon-fri 18:00-07:00"'),
        ("18:00-7pm", "'18:00-7pm': '7pm' is not a time of day", "write it as 18:00"),
        ("18:00-25:00", "'18:00-25:00': '25:00' is not a time of day", "it ends with 24:00"),
        ("18:00-24:01", "'18:00-24:01': '24:01' is not a time of day", "it ends with 24:00"),
        (
            *("18:60-19:00", "'18:60-19:00': '18:60' is not a time of day"),
            "minutes go from 00 to 59: 18:00",
        ),
        (
            *("18:00-7:60", "'18:00-7:60': '7:60' is not a time of day"),
            "minutes go from 00 to 59: 07:00",
        ),
        ("18:00-24:60", "'18:00-24:60': '24:60' is not a time of day", "it ends with 24:00"),
        ("24:00-06:00", "'24:00-06:00': a window begins at 00:00, not at 24:00", ""),
        ("07:00-07:00", "'07:00-07:00' begins and ends at the same minute", "write 00:00-24:00"),
        ("mo-fr 18:00-07:00", "'mo-fr 18:00-07:00': 'mo' is not a day", "did you mean 'mon'?"),
        ("tseday 1:00-2:00", "'tseday 1:00-2:00': 'tseday' is not", "did you mean 'tuesday'?"),
        ("weekend 1:00-2:00", "'weekend 1:00-2:00': 'weekend' is not", "days are mon, tue"),
        ("mon- 1:00-2:00", "'mon- 1:00-2:00': '' is not a day", "days are mon, tue"),
        ("mon 18:00-19:00, tue 18:00-19:00", "'mon 18:00-19:00, tue", ""),
    ],
)
def test_what_is_no_window(text: str, message: str, fix: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_span(text)
    said, mended = caught.value.args
    assert said.startswith(message)
    assert mended.startswith(fix)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("Europe/Stokholm", "did you mean 'Europe/Stockholm'?"),
        ("stockholm", "did you mean 'Europe/Stockholm'?"),
        ("new york", "did you mean 'America/New_York'?"),
        ("../etc/passwd", "write a name such as Europe/Stockholm"),
        ("", "write a name such as Europe/Stockholm"),
        ("Europe", "did you mean 'Europe/Rome'?"),
    ],
)
def test_what_is_no_time_zone(name: str, fix: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone of the IANA data base") as caught:
        check_zone(name)
    assert caught.value.args[1] == fix


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("18:00-07:00", Span((0, 1, 2, 3, 4, 5, 6), 1080, 420)),
        ("mon-fri 18:00-07:00", Span((0, 1, 2, 3, 4), 1080, 420)),
        (" SAT - Sunday  0:00 - 24:00 ", Span((5, 6), 0, 1440)),
        ("fri-mon 08:00-00:00", Span((0, 4, 5, 6), 480, 1440)),
        ("mon, wed,fri-sat 12:30–13:00", Span((0, 2, 4, 5), 750, 780)),
    ],
)
def test_what_is_one(text: str, span: Span) -> None:
    assert parse_span(text) == span


def _at(zone: str, text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone)).timestamp()


def test_the_first_minute_is_in_and_the_last_second_too() -> None:
    windows = parse_windows(["mon 18:00-07:00"], "Europe/Stockholm")
    at = [
        windows.open_at(_at("Europe/Stockholm", f"2026-11-{text}"))
        for text in ("23T17:59:59", "23T18:00:00", "24T06:59:59", "24T07:00", "23T06:00")
    ]
    assert at == [False, True, True, False, False]


def _changes_by_minute(windows: Windows, start: float, minutes: int) -> list[float]:
    """Every minute is asked: what `next_change` must find by thinking."""
    state, found = windows.open_at(start), []
    for step in range(1, minutes):
        if windows.open_at(start + step * 60) is not state:
            state = not state
            found.append(start + step * 60)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("texts", TEXTS, ids=lambda texts: texts[0])
def test_next_change_finds_each_change_about_daylight_saving(
    zone: str, texts: tuple[str, ...]
) -> None:
    windows = parse_windows(texts, zone)
    for month in (3, 4, 10, 11):
        start = datetime(2026, month, 1, tzinfo=UTC)
        moments = [start + timedelta(hours=h) for h in range(0, 24 * 31, 1)]
        shift = next(
            (m for m in moments if _offset(m, zone) != _offset(m + timedelta(hours=1), zone)), None
        )
        if shift is None:
            continue
        begin = shift.timestamp() - 36 * 3600
        expected = _changes_by_minute(windows, begin, 3 * 1440)
        found, moment = [], begin + 0.25
        while (change := windows.next_change(moment)) and change < begin + 3 * 86400:
            found.append(change)
            moment = change
        assert found == expected


def _offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(zone_of(zone)).utcoffset()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("texts", TEXTS[:3], ids=lambda texts: texts[0])
def test_a_year_of_changes(zone: str, texts: tuple[str, ...]) -> None:
    """Each change is one, and nothing changes between two: sampled at odd moments."""
    windows = parse_windows(texts, zone)
    moment = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    end = moment + 366 * 86400
    steps = 0
    while moment < end:
        change = windows.next_change(moment)
        assert change is not None
        assert moment < change <= moment + 9 * 86400
        now = windows.open_at(moment)
        assert all(windows.open_at(moment + (change - moment) * f) is now for f in (0.3, 0.7, 0.99))
        assert windows.open_at(change - 0.001) is now
        assert windows.open_at(change) is not now
        moment, steps = change, steps + 1
    assert steps > 500


def test_the_hours_of_daylight_saving_as_the_docstring_says() -> None:
    zone = "Europe/Stockholm"  # 2026-03-29 02:00 to 03:00 does not exist; 10-25 has it twice
    gap, late = parse_windows(["02:15-02:45"], zone), parse_windows(["02:30-05:00"], zone)
    before = _at(zone, "2026-03-29T01:00")
    assert gap.next_change(before) == _at(zone, "2026-03-30T02:15")
    assert late.next_change(before) == _at(zone, "2026-03-29T03:00") == before + 3600
    twice, early = gap, parse_windows(["01:00-02:30"], zone)
    moment, opened = _at(zone, "2026-10-25T00:30"), []
    while (change := twice.next_change(moment)) and change < _at(zone, "2026-10-26T00:00"):
        opened.append(change)
        moment = change
    first = _at(zone, "2026-10-25T01:00") + 75 * 60
    assert opened == [first, first + 1800, first + 3600, first + 5400]
    half = first + 15 * 60  # the first 02:30
    assert early.next_change(half - 60) == half
    assert early.next_change(half) == half + 1800
    assert early.next_change(half + 1800) == half + 3600


def test_a_window_that_one_week_leaves_out_is_found_in_the_next() -> None:
    windows = parse_windows(["sun 02:10-02:20"], "Europe/Stockholm")
    assert windows.next_change(_at("Europe/Stockholm", "2026-03-22T02:30")) == _at(
        "Europe/Stockholm", "2026-04-05T02:10"
    )


@pytest.mark.parametrize("texts", [["00:00-24:00"], ["18:00-07:00", "07:00-18:00"]])
def test_what_never_changes(texts: list[str]) -> None:
    windows = parse_windows(texts, "Europe/Stockholm")
    assert windows.open_at(0)
    assert windows.next_change(0) is None


def test_order_and_spelling_do_not_count() -> None:
    one = parse_windows(["mon-tue 1:00-2:00", "sat 3:00-4:00"], "UTC")
    other = parse_windows(["Saturday 03:00-04:00", "tue,mon 01:00-02:00"], "UTC")
    assert one.canonical() == other.canonical()
    assert one.canonical() != parse_windows(["mon 1:00-2:00"], "UTC").canonical()
