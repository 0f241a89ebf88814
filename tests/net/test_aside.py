"""Reading in a thread, also where none can be started."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.net.aside import read_aside


class Reader:
    """Tells whether it is read once it is closed: it would open its file anew."""

    length = remaining = 10

    def __init__(self) -> None:
        self.closed = False
        self.read_closed = False

    def try_read(self, buffers: list[memoryview]) -> bool:
        return False

    def read(self, buffers: list[memoryview]) -> None:
        self.read_closed = self.closed

    def close(self) -> None:
        self.closed = True


def _full(_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_what_no_thread_was_there_for_is_not_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reader = Reader()
        with monkeypatch.context() as patch:
            patch.setattr(ThreadPoolExecutor, "_adjust_thread_count", _full)
            with pytest.raises(RuntimeError):
                await read_aside(reader, [memoryview(bytearray(10))])
        reader.close()
        await asyncio.to_thread(int)  # the same line
        assert not reader.read_closed

    asyncio.run(scenario())
