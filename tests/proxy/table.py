"""The outcome table: each way in which a destination misbehaves, and what has to come of it.

Owns what is expected, as values that `test_outcomes` holds the gateway against and that `page`
prints.  Each case is a destination of its own with three instances, one association and (but
where ``window`` says otherwise) one message outstanding.  A fault in a message meets the second
instance; a fault of the association meets it before any was sent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from perf import faults, wire
from perf.proxy import THROUGH, Answer, Cut, End, Script, Step
from router.dimse.status import describe_status
from router.forward.verdict import HAS_ONE
from router.spool.index_types import DeliveryState
from tests.forward.fakes import CT, EXPLICIT, IMPLICIT, MR

DEAD, DELIVERED = DeliveryState.DEAD, DeliveryState.DELIVERED
PATIENCE = 2.0
"""Seconds of each time-out in the test."""
SMALL = 2_000
LARGE = 12_000_000
"""Bytes of an instance that the socket buffers of both ends together do not hold."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    ``scripts`` are those of the connections, the last for all later ones; ``astray`` changes
    the address for the first calls.  ``tries`` are texts of the reasons recorded with attempts
    at the second instance that failed for now, ``last`` and ``status`` what is recorded with its
    end, ``state``.  ``copies`` is how often it may arrive, at least and at most.  ``calls`` is
    how often the peer may be called.  ``goes_on`` tells that the association is used after the
    fault, ``refused`` is the text of an association that could not be had, ``down`` that the
    destination is called down.  ``charged`` are the instances that fare so, counted from 1; the
    others are delivered once, at the first attempt, but for the third where ``next_too`` is the
    text of a reason for which its first may fail: it was begun before the end was seen.
    ``sop_classes`` are those of the three.  ``quiet``: it is tried apart from those that are not,
    as it comes near to the time-outs, and ninety others on the same loop would push it over.
    """

    group: str
    fault: str
    scripts: tuple[Script, ...] = (THROUGH,)
    astray: tuple[dict[str, object], ...] = ()
    state: DeliveryState = DELIVERED
    status: int | None = 0
    tries: tuple[str, ...] = ()
    last: str = ""
    copies: tuple[int, int] = (1, 1)
    calls: int = 2
    goes_on: bool = False
    refused: str = ""
    down: bool = False
    charged: tuple[int, ...] = (2,)
    size: int = SMALL
    window: int = 1
    next_too: str = ""
    sop_classes: tuple[str, str, str] = (CT, CT, CT)
    quiet: bool = False


# -- before the association stands ----------------------------------------------------------------

_CALL = Case("Before the association stands", "", calls=3, down=True)
_CLOSED = "closed the connection"


def _unheard(fault: str, refused: str, script: Script) -> Case:
    return replace(_CALL, fault=fault, refused=refused, scripts=(script, THROUGH))


def _astray(fault: str, refused: str, **address: object) -> Case:
    return replace(_CALL, fault=fault, refused=refused, astray=(address,))


def _at_ac(fault: str, refused: str, change: faults.Change) -> Case:
    return _unheard(fault, refused, Script(rewrite=faults.at_acceptance(change)))


def _rejections() -> Iterable[Case]:
    rows = {
        (1, 1, 1): "rejected permanently by the peer's application: no reason given",
        (1, 1, 2): "application context name not supported",
        (1, 1, 3): "calling AE title not recognised",
        (1, 1, 7): "called AE title not recognised",
        (1, 2, 1): "rejected permanently by the peer's upper layer (ACSE): no reason given",
        (1, 2, 2): "protocol version not supported",
        (2, 3, 1): "temporary congestion",
        (2, 3, 2): "local limit exceeded",
        (9, 9, 9): "rejected with an unknown result by an unknown source: unknown reason",
    }
    for (result, source, reason), text in rows.items():
        fault = f"A-ASSOCIATE-RJ, result {result}, source {source}, reason {reason}"
        yield _at_ac(fault, text, faults.rejected(result, source, reason))


_CONNECTING = (
    _astray("connection refused", "could not be connected to", port=1),
    _astray("a host name that does not exist", "could not be connected to", host="nobody.invalid"),
    _unheard("accepts and closes at once (FIN)", _CLOSED, Script(greet="fin")),
    _unheard("accepts and closes at once (RST)", _CLOSED, Script(greet="rst")),
    _unheard(
        "half-open: takes everything and says nothing",
        "did not answer the association request",
        Script(answering=False),
    ),
    _unheard(
        "never reads, never answers",
        "did not answer the association request",
        Script(stop_reading=0),
    ),
    *_rejections(),
    _at_ac(
        "A-ABORT instead of an answer",
        "aborted by the peer's upper layer: unrecognised PDU",
        faults.instead(faults.ABORTED_BY_PROVIDER, End.FIN),
    ),
    _at_ac("an HTTP server", "HTTP response", faults.instead(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    _at_ac("a TLS alert", "TLS alert", faults.instead(b"\x15\x03\x03\x00\x02\x02\x46", End.FIN)),
    _at_ac("garbage", "broke the protocol", faults.instead(bytes(range(200, 256)))),
    _at_ac(
        "a PDU that claims 4 GiB",
        "4294967295 bytes",
        faults.instead(b"\x02\x00\xff\xff\xff\xff" + bytes(60)),
    ),
    _at_ac("A-RELEASE-RP instead of an answer", "unexpected", faults.instead(wire.RELEASE_RP_PDU)),
    _at_ac("a maximum length of 7 bytes", "in which no message fits", faults.maximum_length(7)),
    _at_ac(
        "the A-ASSOCIATE-AC comes after the time-out",
        "did not answer the association request",
        lambda pdu: faults.late(1.5 * PATIENCE)(Answer(pdu[0], 1, pdu)),
    ),
)


# -- presentation contexts ------------------------------------------------------------------------

_CONTEXT = Case(
    "Presentation contexts", "", state=DEAD, status=None, copies=(0, 0), calls=1, charged=(1, 2, 3)
)
_NO_CONTEXT = "no presentation context accepted: CT Image Storage"


def _context(fault: str, choose: Callable[[int, str], tuple[int, int, str] | None]) -> Case:
    script = Script(rewrite=faults.at_acceptance(faults.contexts(choose)))
    return replace(_CONTEXT, fault=fault, scripts=(script,), last=_NO_CONTEXT)


def _of_two_classes(fault: str, result: int, **outcome: Any) -> Case:
    script = Script(
        rewrite=faults.at_acceptance(
            faults.contexts(lambda number, syntax: (number, result if number > 1 else 0, syntax))
        )
    )
    case = replace(_CONTEXT, fault=fault, scripts=(script,), sop_classes=(CT, MR, CT))
    return replace(case, charged=(2,), goes_on=True, **outcome)


_CONTEXTS = (
    _of_two_classes(
        "two SOP classes proposed, the second refused (result 3)",
        3,
        last="no presentation context accepted: MR Image Storage",
    ),
    _of_two_classes(
        "two proposed, the second refused (result 1), but accepted alone",
        1,
        state=DELIVERED,
        status=0,
        copies=(1, 1),
        calls=2,
    ),
    _context("the SOP class is refused (result 3)", lambda number, syntax: (number, 3, syntax)),
    _context(
        "the transfer syntax is refused (result 4)", lambda number, syntax: (number, 4, syntax)
    ),
    _context("the user refuses the context (result 1)", lambda number, syntax: (number, 1, syntax)),
    _context("the provider refuses (result 2)", lambda number, syntax: (number, 2, "")),
    _context("the context is not answered", lambda number, syntax: None),
    _context("another context is answered", lambda number, syntax: (number + 2, 0, syntax)),
    _context(
        "accepted with a transfer syntax that was not proposed",
        lambda number, syntax: (number, 0, IMPLICIT if syntax == EXPLICIT else EXPLICIT),
    ),
)


# -- in the middle of a message -------------------------------------------------------------------

_MESSAGE = Case("In the middle of a message", "", copies=(2, 2), calls=3)
_IN_THE_SECOND = 6 * SMALL
"""Bytes from the sender that end in the second instance of `4 * SMALL` bytes: association and
commands are a few hundred."""


def _cut(fault: str, cut: Cut) -> Case:
    return replace(
        _MESSAGE,
        fault=fault,
        scripts=(Script(cut=cut), THROUGH),
        tries=(_CLOSED,),
        copies=(1, 1),
        size=4 * SMALL,
    )


def _at_response(
    fault: str,
    change: Callable[[Answer], Iterable[Step]],
    *tries: str,
    copies: tuple[int, int] = (2, 2),
) -> Case:
    script = Script(rewrite=faults.at_response(change))
    return replace(_MESSAGE, fault=fault, scripts=(script, THROUGH), tries=tries, copies=copies)


_LOST = (
    _cut("the line ends in the data set (FIN)", Cut("request", _IN_THE_SECOND, "fin")),
    _cut("the line ends in the data set (RST)", Cut("request", _IN_THE_SECOND, "rst")),
    _at_response("closes instead of answering (FIN)", faults.instead(End.FIN), _CLOSED),
    _at_response("closes instead of answering (RST)", faults.instead(End.RST), _CLOSED),
    _at_response(
        "A-ABORT of the application instead of the answer",
        faults.instead(faults.ABORTED_BY_USER, End.FIN),
        "aborted by the peer's application",
    ),
    _at_response(
        "A-ABORT of the upper layer instead of the answer",
        faults.instead(faults.ABORTED_BY_PROVIDER, End.FIN),
        "aborted by the peer's upper layer: unrecognised PDU",
    ),
    _at_response(
        "A-RELEASE-RQ instead of the answer",
        faults.instead(wire.RELEASE_RQ_PDU),
        "released the association",
    ),
    _at_response("never answers", faults.instead(), "was silent for"),
    _at_response("answers after the time-out", faults.late(1.5 * PATIENCE), "was silent for"),
    replace(
        _MESSAGE,
        fault="stops reading in the data set: the receive window fills",
        scripts=(Script(stop_reading=5_000), THROUGH),
        tries=("was silent for",),
        copies=(1, 1),
        size=LARGE,
    ),
)


# -- between two messages -------------------------------------------------------------------------

_BETWEEN = Case("Between two messages", "")


def _behind(fault: str, change: Callable[[Answer], Iterable[Step]]) -> Case:
    script = Script(rewrite=faults.at_response(change))
    return replace(_BETWEEN, fault=fault, scripts=(script, THROUGH))


_AFTER = (
    replace(
        _behind("closes behind the answer (FIN)", faults.ended_by(End.FIN)),
        next_too=_CLOSED,
        calls=3,
    ),
    _behind("A-ABORT behind the answer", faults.behind(faults.ABORTED_BY_PROVIDER, End.FIN)),
    _behind("A-RELEASE-RQ behind the answer", faults.behind(wire.RELEASE_RQ_PDU)),
    _behind("answers twice", faults.twice),
    _behind("garbage behind the answer", faults.behind(bytes(range(200, 256)))),
    replace(
        _BETWEEN,
        fault="does not answer A-RELEASE-RQ",
        scripts=(Script(rewrite=faults.at_release(faults.instead())),),
        calls=1,
    ),
    replace(
        _BETWEEN,
        fault="garbage instead of A-RELEASE-RP",
        scripts=(Script(rewrite=faults.at_release(faults.instead(b"\xff" * 40))),),
        calls=1,
    ),
)


# -- wrong answers --------------------------------------------------------------------------------


def _wrong(fault: str, change: Callable[[Answer], Iterable[Step]], *tries: str) -> Case:
    return replace(_at_response(fault, change, *tries), group="Wrong answers to a C-STORE")


_STRANGE = "broke the protocol: "
_WRONG = (
    _wrong("garbage", faults.instead(bytes(range(200, 256))), _STRANGE),
    _wrong(
        "for a message that is not outstanding",
        faults.response(add_to_id=7),
        "which is not outstanding",
    ),
    _wrong("for the message before", faults.response(add_to_id=-1), "which is not outstanding"),
    replace(
        _wrong("for a SOP instance that it was not sent", faults.response(instance="1.2.3.4.5")),
        goes_on=True,
        copies=(1, 1),
        calls=1,
    ),
    _wrong("a C-ECHO-RSP", faults.response(field=wire.C_ECHO_RSP), "C-ECHO-RSP for message"),
    _wrong("without Status", faults.response(status=None), "without Status"),
    _wrong(
        "without Message ID Being Responded To",
        faults.response(add_to_id=None),
        "without Message ID Being Responded To",
    ),
    _wrong(
        "without Command Data Set Type",
        faults.response(data_set=None),
        "without Command Data Set Type",
    ),
    _wrong(
        "in a presentation context that was not accepted",
        lambda answer: (answer.pdu[:10] + b"\xfd" + answer.pdu[11:],),
        "which was not accepted",
    ),
    _wrong(
        "a command set cut short",
        lambda answer: (faults.command(answer.pdu[10], [(0x0100, b"\x01\x80")]),),
        "without Command Data Set Type",
    ),
    replace(
        _wrong("", faults.twice, "for another instance"),
        fault="two outstanding, each answered for the other's SOP instance",
        scripts=(
            Script(rewrite=faults.Swapped(), setup=faults.at_acceptance(faults.window(2))),
            THROUGH,
        ),
        window=2,
        charged=(1, 2),
    ),
    replace(
        _wrong("without SOP class and instance UID", faults.response(instance="")),
        goes_on=True,
        copies=(1, 1),
        calls=1,
    ),
)


# -- slow, but right ------------------------------------------------------------------------------

_SLOW = Case("Slow, but right", "", quiet=True, calls=1, goes_on=True)
_RIGHT = (
    replace(
        _SLOW,
        fault="a maximum length of 8 bytes, two of each PDU for the message",
        scripts=(Script(rewrite=faults.at_acceptance(faults.maximum_length(8))),),
    ),
    replace(_SLOW, fault="every answer a little late", scripts=(Script(delay=0.1, jitter=0.2),)),
    replace(_SLOW, fault="answers a byte at a time", scripts=(Script(split=True),)),
    replace(
        _SLOW,
        fault="a line so slow that the data set takes longer than the time-out",
        scripts=(Script(bandwidth=1_000_000),),
        size=3_200_000,
    ),
)


# -- statuses -------------------------------------------------------------------------------------

_STATUS = Case("Statuses of a C-STORE-RSP", "", calls=1, goes_on=True)


def _status(status: int, *, fate: str) -> Case:
    text, reason = describe_status(status), f"{describe_status(status)} (because)"
    script = Script(rewrite=faults.at_response(faults.response(status, comment="because")))
    case = replace(_STATUS, fault=text, scripts=(script, THROUGH), status=status)
    if fate == "delivered":
        return replace(case, last=reason if status else "")
    if fate == "dead":
        more = f"; {HAS_ONE}" if status == 0x0111 else ""
        return replace(case, state=DEAD, last=reason + more)
    return replace(case, tries=(reason,), copies=(2, 2), status=0, calls=2)


_STATUSES = (
    *(_status(status, fate="delivered") for status in (0x0000, 0xB000, 0xB006, 0xB007)),
    *(
        _status(status, fate="later")
        for status in (
            *(0x0110, 0x0210, 0x0213, 0xA700, 0xA7FF, 0xA800, 0xB001, 0xFE00, 0xFF00, 0x4711),
        )
    ),
    *(
        _status(status, fate="dead")
        for status in (0x0111, 0x0117, 0x0122, 0x0124, 0x0211, 0x0212, 0xA900, 0xC000, 0xCFFF)
    ),
    replace(
        _STATUS,
        fault="0110 processing failure at every attempt",
        scripts=(
            Script(rewrite=faults.for_instance(2, faults.response(0x0110, comment="read-only"))),
        ),
        state=DEAD,
        status=0x0110,
        tries=("read-only", "read-only"),
        last="given up after 3 attempts",
        copies=(3, 3),
        calls=3,
    ),
    replace(
        _STATUS,
        fault="0111 duplicate SOP instance, after an attempt whose answer was lost",
        scripts=(
            Script(rewrite=faults.at_response(faults.instead(End.RST))),
            Script(rewrite=faults.for_instance(2, faults.response(0x0111))),
        ),
        state=DEAD,
        status=0x0111,
        tries=(_CLOSED,),
        last=HAS_ONE,
        copies=(2, 2),
        calls=3,
        goes_on=False,
    ),
)

TABLE: tuple[Case, ...] = (
    *_CONNECTING,
    *_CONTEXTS,
    *_LOST,
    *_AFTER,
    *_WRONG,
    *_RIGHT,
    *_STATUSES,
)
