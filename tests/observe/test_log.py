import io
import json
import logging
import threading

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from router.observe import log
from router.observe.counters import Counters
from router.observe.sink import BackgroundSink


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def configured(stream):
    logs = []

    def configure(**options):
        logs.append(log.configure(stream=stream, **options))
        return logs[-1]

    yield configure
    for item in logs:
        item.close()
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_level_time_and_values(configured, stream):
    configured(form="json")
    structlog.get_logger().warning("refused", association="a1", pdus=3)
    (line,) = lines(stream)
    assert line["event"] == "refused"
    assert line["level"] == "warning"
    assert (line["association"], line["pdus"]) == ("a1", 3)
    assert line["timestamp"].endswith("Z")


def test_console_is_chosen_on_a_terminal_only(configured, stream):
    configured()
    structlog.get_logger().info("hello")
    assert lines(stream)
    stream.truncate(0)
    stream.isatty = lambda: True
    configured()
    structlog.get_logger().info("hello")
    assert "\x1b[" in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_forged_line_stays_one_line(configured, stream, form):
    configured(form=form)
    evil = "CT1\n2026-01-01 [info] all is well\r\x1b[2J\u2028\u202e\x9b31m\x00"
    structlog.get_logger().warning(f"refused {evil}", calling_ae=evil, nested={evil: [evil]})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not any(c in text for c in "\r\x1b\u2028\u202e\x9b\x00")
    assert "all is well" in text


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_text_of_an_exception_cannot_forge_a_line(configured, stream, form):
    configured(form=form)
    try:
        raise ValueError("AE title 'X\n2026-01-01 forged'")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert not any(line.startswith("2026-01-01 forged") for line in stream.getvalue().splitlines())
    assert "ValueError" in stream.getvalue()


def test_what_libraries_log_comes_through_the_same_way(configured, stream):
    configured(form="json")
    logging.getLogger("some.library").warning("bad %s", "thing\n")
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("some.library").exception("worse")
    first, second = lines(stream)
    assert first["event"] == "bad thing\\n"
    assert first["logger"] == "some.library"
    assert first["level"] == "warning"
    assert "OSError: gone" in second["exception"]


def test_the_level_binds_both_and_can_be_changed(configured, stream):
    handle = configured(form="json", level="warning")
    logger = structlog.get_logger()
    logger.info("no")
    logging.getLogger("x").info("no")
    assert stream.getvalue() == ""
    handle.set_level("debug")
    logger.debug("yes")
    logging.getLogger("x").debug("yes")
    logging.getLogger("uvicorn.error").info("Uvicorn running")
    assert [line["event"] for line in lines(stream)] == ["yes", "yes"]


def test_values_of_patients_are_withheld_unless_configured(configured, stream):
    configured(form="json")
    structlog.get_logger().info("stored", patient_name="DOE^JOHN", accession_number="77")
    assert "DOE" not in stream.getvalue()
    assert lines(stream)[0]["accession_number"] == "(withheld)"
    configured(form="json", patient_data=True)
    structlog.get_logger().info("stored", patient_name="DOE^JOHN")
    assert lines(stream)[1]["patient_name"] == "DOE^JOHN"


def test_lines_are_counted_by_level(configured, stream):
    counters = Counters()
    configured(form="json", counters=counters)
    structlog.get_logger().warning("one")
    logging.getLogger("x").error("two")
    assert counters.log_lines.of("warning").value == 1
    assert counters.log_lines.of("error").value == 1


def test_a_bad_format_of_a_library_does_not_reach_its_caller(configured, stream, monkeypatch):
    configured(form="json")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("x").warning("%d things", "three")
    logging.getLogger("x").warning("fine")
    assert [line["event"] for line in lines(stream)] == ["fine"]


def test_reconfiguring_does_not_double_the_lines(configured, stream):
    configured(form="json")
    configured(form="json")
    logging.getLogger("x").warning("once")
    assert len(lines(stream)) == 1


@given(st.text())
def test_escaped_text_is_one_printable_line(text):
    safe = log.escape(text)
    assert len(safe.splitlines()) <= 1
    assert not any(
        ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in safe
    )
    assert log.escape(safe) == safe


def test_long_values_are_cut():
    assert len(log.escape("x" * 100_000)) < log.LONGEST_VALUE + 50


class StuckStream:
    """A pipe whose reader stands still until told."""

    def __init__(self):
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.text = ""

    def write(self, text):
        self.entered.set()
        self.gate.wait(10)
        self.text += text

    def flush(self):
        pass


def test_a_reader_that_stands_still_does_not_hold_up_the_writer():
    stream, dropped = StuckStream(), []
    sink = BackgroundSink(stream, limit=5, on_drop=lambda: dropped.append(1))
    sink.write("first")
    assert stream.entered.wait(5)
    for number in range(8):
        sink.write(str(number))
    assert len(dropped) == 3
    stream.gate.set()
    sink.close()
    assert stream.text == "first\n0\n1\n2\n3\n4\n"
    sink.write("late")
    assert stream.text.endswith("4\nlate\n")


def test_a_stream_that_fails_is_no_failure_of_the_caller():
    tried = []

    class Broken(StuckStream):
        def write(self, text):
            tried.append(text)
            raise BrokenPipeError

    sink = BackgroundSink(Broken())
    sink.write("x")
    sink.close()
    sink.write("y")
    assert tried == ["x\n", "y\n"]


def test_the_background_form_writes_out_on_close(stream):
    handle = log.configure(stream=stream, form="json", background=True)
    structlog.get_logger().info("last words")
    handle.close()
    structlog.reset_defaults()
    assert lines(stream)[0]["event"] == "last words"
