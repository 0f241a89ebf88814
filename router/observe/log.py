"""The log: structlog, and what libraries say through the standard `logging`, in one form.

Owns the chain that every line passes and the guard against forged lines: an AE title is what a
stranger sent, and one with a line feed or an escape sequence in it must not write a line of its
own or colour the terminal.  Console on a terminal, a JSON object per line otherwise; times are
UTC in ISO 8601.
"""

import atexit
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from router.observe.counters import Counters
from router.observe.sink import BackgroundSink, DirectSink, Sink

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

LONGEST_VALUE = 4096
"""Characters of one value in a line; what is longer is cut."""

# C0, DEL and C1; line and paragraph separators; marks and overrides of direction; surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_PATIENT_KEYS = frozenset(
    {"accession_number", "other_patient_ids", "referring_physician_name", "study_description"}
)
_WITHHELD = "(withheld)"
# Said by these libraries at every start, connection and stop; of use to their authors only.
_QUIET = {"asyncio": logging.WARNING, "uvicorn.error": logging.WARNING}


def escape(text: str) -> str:
    """The text with everything that could forge or hide part of a line made visible.

    A line feed becomes the two characters ``\\n``, an escape the four ``\\x1b``, and so on; what
    is over `LONGEST_VALUE` is cut.  Text that is safe comes back as it is.
    """
    if len(text) > LONGEST_VALUE:
        text = f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    simple = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return simple or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _safe(value: object, depth: int = 3) -> object:
    if isinstance(value, str):
        return escape(value)
    if value is None or isinstance(value, int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {escape(str(k)): _safe(v, depth - 1) for k, v in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth - 1) for item in value]
    # An exception's text names what a peer sent; the repr of a str subclass or bytes is safe.
    return escape(str(value) if isinstance(value, BaseException) else repr(value))


def sanitise(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Processor: escape every value; of a traceback, keep the line ends but set each line in."""
    for key, value in event.items():
        if key == "exception" and isinstance(value, str):
            event[key] = "\n".join(f"    {escape(line)}" for line in value.split("\n"))
        elif key != "exc_info":
            event[key] = _safe(value)
    return event


def withhold(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Processor: values that identify a patient do not reach the log (promise 10)."""
    for key in event:
        if key.startswith("patient_") or key in _PATIENT_KEYS:
            event[key] = _WITHHELD
    return event


class _SinkLogger:
    """The end of structlog's chain: one method for every level."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: str) -> None:
        self._sink.write(line)

    debug = info = warning = warn = error = exception = critical = fatal = log = msg


class Bridge(logging.Handler):
    """Takes the records of the standard `logging` through the same chain."""

    def __init__(self, processors: list[Processor], sink: Sink) -> None:
        super().__init__()
        self._processors = processors
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """One record; errors in it are handled as `logging.raiseExceptions` says."""
        try:
            event: Any = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            for processor in self._processors:
                event = processor(None, record.levelname.lower(), event)
            self._sink.write(event)
        except Exception:  # noqa: BLE001  a library's bad format string must not stop its caller
            self.handleError(record)


class Log:
    """The log as configured; `close` writes out what is waiting."""

    def __init__(self, sink: Sink, bridge: Bridge) -> None:
        self._sink = sink
        self._bridge = bridge

    def set_level(self, level: Level) -> None:
        """From now on; loggers that were bound before keep theirs."""
        number = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
        logging.getLogger().setLevel(number)
        for name, floor in _QUIET.items():
            logging.getLogger(name).setLevel(max(number, floor))

    def close(self) -> None:
        """Write out what is waiting, for two seconds at most; later lines go to a direct sink."""
        logging.getLogger().removeHandler(self._bridge)
        atexit.unregister(self._sink.close)
        self._sink.close()


def configure(
    level: Level = "info",
    form: Format = "auto",
    *,
    stream: TextIO | None = None,
    background: bool = False,
    patient_data: bool = False,
    counters: Counters | None = None,
) -> Log:
    """Set the log up, for the whole process.

    ``stream`` is standard error when not given; ``auto`` takes the console form when it is a
    terminal.  ``background`` is for `serve`: a line is handed to a thread and never holds up the
    event loop.  ``counters`` counts lines by level.
    """
    target = stream if stream is not None else sys.stderr
    terminal = target.isatty()
    console = form == "console" or (form == "auto" and terminal)
    sink: Sink
    if background:
        dropped = _dropper(counters)
        sink = BackgroundSink(target, on_drop=dropped)
        atexit.register(sink.close)
    else:
        sink = DirectSink(target)
    processors = _processors(console, terminal, patient_data, counters)
    structlog.configure(
        processors=processors,
        logger_factory=lambda *_: _SinkLogger(sink),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, Bridge)]:
        root.removeHandler(handler)
    bridge = Bridge(processors, sink)
    root.addHandler(bridge)
    log = Log(sink, bridge)
    log.set_level(level)
    return log


def _dropper(counters: Counters | None) -> Callable[[], None] | None:
    if counters is None:
        return None
    count = counters.log_lines.of("dropped")

    def dropped() -> None:
        count.value += 1

    return dropped


def _processors(
    console: bool, colours: bool, patient_data: bool, counters: Counters | None
) -> list[Processor]:
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        sanitise,
    ]
    if counters is not None:
        processors.insert(0, _counting(counters))
    if not patient_data:
        processors.insert(0, withhold)
    if console:
        processors.append(structlog.dev.ConsoleRenderer(colors=colours))
    else:
        processors.append(structlog.processors.JSONRenderer(sort_keys=False))
    return processors


def _counting(counters: Counters) -> Processor:
    def count(_: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> EventDict:
        counters.on_log_line("error" if method == "exception" else method)
        return event

    return count
