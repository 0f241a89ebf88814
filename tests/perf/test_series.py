"""Whether a resource that leaks is found, and one that does not is left alone."""

import itertools
import random
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from perf.series import TIME, Bound, Row, judge, read_csv, svg, write_csv

RSS = Bound("rss", absolute=10e6, relative=0.1)


def rows(value: Callable[[float], float], seconds: int = 1800, step: int = 5) -> list[Row]:
    return [{TIME: float(t), "rss": value(t)} for t in range(0, seconds + 1, step)]


def flat(value: Callable[[float], float]) -> bool:
    (verdict,) = judge(rows(value), [RSS])
    return verdict.flat


def test_a_leak_is_found() -> None:
    # 20 kB a second is what a forgotten object per instance comes to.
    assert not flat(lambda t: 80e6 + t * 20e3)


def test_a_level_is_flat() -> None:
    assert flat(lambda _: 80e6)


def test_a_rise_while_warming_up_is_none() -> None:
    assert flat(lambda t: 60e6 + 30e6 * min(1.0, t / 300))


def test_a_saw_with_noise_is_flat_and_one_that_climbs_is_not() -> None:
    noise = random.Random(4)
    level = {t: 80e6 + (t % 60) * 0.3e6 + noise.uniform(-2e6, 2e6) for t in range(0, 1801, 5)}
    assert flat(lambda t: level[int(t)])
    assert not flat(lambda t: level[int(t)] + t * 20e3)


def test_a_fall_is_no_leak() -> None:
    assert flat(lambda t: 200e6 - t * 60e3)


def test_one_spike_in_the_last_fifth_is_no_leak() -> None:
    assert flat(lambda t: 500e6 if t == 1700 else 80e6)


def test_a_jump_that_stays_is_one() -> None:
    assert not flat(lambda t: 80e6 if t < 1000 else 95e6)


@pytest.mark.parametrize(("rise", "expected"), [(10, True), (11, False), (30, False)])
def test_the_larger_of_both_allowances_counts(rise: int, expected: bool) -> None:
    samples = [{TIME: float(t), "n": 50.0 + (rise if t > 50 else 0)} for t in range(101)]
    (verdict,) = judge(samples, [Bound("n", absolute=4, relative=0.2)])
    assert (verdict.before, verdict.after) == (50.0, 50.0 + rise)
    assert verdict.flat is expected


def test_too_few_samples_are_not_judged() -> None:
    for samples in ([], rows(lambda _: 1.0, seconds=40)):
        with pytest.raises(ValueError, match="samples"):
            judge(samples, [RSS])


def test_a_column_that_ends_is_not_judged_flat() -> None:
    samples = [row if row[TIME] < 1400 else {TIME: row[TIME]} for row in rows(lambda _: 1.0)]
    with pytest.raises(ValueError, match="rss"):
        judge(samples, [RSS])


def test_figures_come_back_from_the_file(tmp_path: Path) -> None:
    samples: list[Row] = [{TIME: 0.0, "a": 1.5}, {TIME: 5.0, "a": 2.0, "b": 123456789.0}]
    write_csv(tmp_path / "x.csv", samples)
    assert read_csv(tmp_path / "x.csv") == samples


def test_the_drawing_has_a_line_for_each_column_within_its_frame() -> None:
    samples = [{TIME: float(t), "a<b": float(t % 7), "none": 0.0} for t in range(50)]
    root = ET.fromstring(svg(samples, ["a<b", "none", "absent"], "R & D"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"R & D", "a<b", "none", "absent"} <= set(texts)
    lines = list(root.iter(f"{space}polyline"))
    frames = [f for f in root.iter(f"{space}rect") if f.get("stroke")]
    assert (len(lines), len(frames)) == (2, 3)
    for line, frame in zip(lines, frames, strict=False):
        left, top = float(frame.attrib["x"]), float(frame.attrib["y"])
        right, bottom = left + float(frame.attrib["width"]), top + float(frame.attrib["height"])
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        assert len(points) == 50
        assert all(left <= x <= right and top <= y <= bottom for x, y in points)
        assert all(a[0] < b[0] for a, b in itertools.pairwise(points))
