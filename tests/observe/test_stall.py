import asyncio
import heapq

import pytest

from router.observe.counters import STALL_SECONDS, Histogram
from router.observe.stall import StallMeter


class VirtualLoop:
    """Time, and one heap of timers; `run` may hold the loop up at a moment."""

    def __init__(self):
        self.now = 0.0
        self._timers = []
        self._number = 0

    def call_later(self, delay, callback, *args):
        handle = asyncio.TimerHandle(self.now + delay, callback, args, self)
        self._number += 1
        heapq.heappush(self._timers, (self.now + delay, self._number, handle))
        return handle

    def get_debug(self):
        return False

    def _timer_handle_cancelled(self, handle):
        pass

    def run(self, until, stalls=()):
        stalls = dict(stalls)
        while self._timers and self._timers[0][0] <= until:
            when, _, handle = heapq.heappop(self._timers)
            for start, length in list(stalls.items()):
                if start <= when:
                    self.now = max(self.now, start + length)
                    del stalls[start]
            self.now = max(self.now, when)
            if not handle.cancelled():
                handle._run()
        self.now = max(self.now, until)


@pytest.fixture
def measured():
    loop, histogram = VirtualLoop(), Histogram(STALL_SECONDS)
    meter = StallMeter(histogram, loop=loop, clock=lambda: loop.now)
    return loop, histogram, meter


def test_a_free_loop_is_never_late(measured):
    loop, histogram, meter = measured
    meter.start()
    loop.run(10.0)
    assert histogram.count == pytest.approx(500, abs=2)
    assert histogram.max < 1e-9


def test_a_stall_is_seen_with_its_length(measured):
    loop, histogram, meter = measured
    meter.start()
    loop.run(1.0, stalls=[(0.495, 0.038)])
    assert histogram.max == pytest.approx(0.033, abs=1e-9)
    assert histogram.quantile(1.0) == 0.035
    late = sum(histogram.counts[1:])
    assert late == 1


def test_stopping_ends_the_measuring_and_it_can_begin_again(measured):
    loop, histogram, meter = measured
    meter.start()
    meter.start()
    loop.run(1.0)
    meter.stop()
    meter.stop()
    before = histogram.count
    loop.run(2.0)
    assert histogram.count == before
    meter.start()
    loop.run(3.0)
    assert before < histogram.count <= 2 * before + 1


async def test_on_a_real_loop():
    histogram, seen = Histogram(STALL_SECONDS), asyncio.Event()

    def observe(value):
        Histogram.observe(histogram, value)
        seen.set()

    class Watched:
        def observe(self, value):
            observe(value)

    meter = StallMeter(Watched(), interval=0.001)
    meter.start()
    await asyncio.wait_for(seen.wait(), 5)
    meter.stop()
    assert histogram.count >= 1
