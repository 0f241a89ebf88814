"""Every cell of PS3.8 table 9-10: the table itself, and what a connection does in that cell."""

from collections.abc import Callable

import pytest
from pynetdicom.fsm import TRANSITION_TABLE

from router.ul import (
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AbortReason,
    AbortSource,
    ArtimExpired,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequested,
    Event,
    LocalProtocolError,
    PeerAborted,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    State,
    TransportClosed,
    UserInformation,
    accept_request,
    decode_pdu,
    encode_pdu,
    negotiate,
)
from router.ul.negotiation import accepted
from router.ul.pdu import AAbort, AReleaseRP, AReleaseRQ
from router.ul.state import TABLE, Action, Trigger

from .support import ARTIM, Side, data_pdu, in_state, request

# Written from the standard, apart from router/ul/state.py: a line per event, a column per state.
TABLE_9_10 = """
 1 AE-1/4 - - - - - - - - - - - -
 2 - - - AE-2/5 - - - - - - - - -
 3 - AA-1/13 AA-8/13 - AE-3/6 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
 4 - AA-1/13 AA-8/13 - AE-4/1 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
 5 AE-5/2 - - - - - - - - - - - -
 6 - AE-6/3or13 AA-8/13 - AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13
 7 - - AE-7/6 - - - - - - - - - -
 8 - - AE-8/13 - - - - - - - - - -
 9 - - - - - DT-1/6 - AR-7/8 - - - - -
10 - AA-1/13 AA-8/13 - AA-8/13 DT-2/6 AR-6/7 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
11 - - - - - AR-1/7 - - - - - - -
12 - AA-1/13 AA-8/13 - AA-8/13 AR-2/8 AR-8/9or10 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-6/13
13 - AA-1/13 AA-8/13 - AA-8/13 AA-8/13 AR-3/1 AA-8/13 AA-8/13 AR-10/12 AR-3/1 AA-8/13 AA-6/13
14 - - - - - - - AR-4/13 AR-9/11 - - AR-4/13 -
15 - - AA-1/13 AA-2/1 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 AA-1/13 -
16 - AA-2/1 AA-3/1 - AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-3/1 AA-2/1
17 - AA-5/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AA-4/1 AR-5/1
18 - AA-2/1 - - - - - - - - - - AA-2/1
19 - AA-1/13 AA-8/13 - AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-8/13 AA-7/13
"""
CELLS = {
    (state, int(line.split()[0])): cell
    for line in TABLE_9_10.strip().splitlines()
    for state, cell in enumerate(line.split()[1:], start=1)
}
# Action to: sends an A-ABORT or other PDU, timer ("start", "stop" or ""), closes the transport.
DOES = {
    "AE-1": ("", "", False),
    "AE-2": ("AAssociateRQ", "", False),
    "AE-3": ("", "", False),
    "AE-4": ("", "", True),
    "AE-5": ("", "start", False),
    "AE-6": ("", "stop", False),
    "AE-7": ("AAssociateAC", "", False),
    "AE-8": ("AAssociateRJ", "start", False),
    "DT-1": ("", "", False),  # the sender writes P-DATA-TF itself
    "DT-2": ("", "", False),
    "AR-1": ("AReleaseRQ", "", False),
    "AR-2": ("", "", False),
    "AR-3": ("", "", True),
    "AR-4": ("AReleaseRP", "start", False),
    "AR-5": ("", "stop", False),
    "AR-6": ("", "", False),
    "AR-7": ("", "", False),
    "AR-8": ("", "", False),
    "AR-9": ("AReleaseRP", "", False),
    "AR-10": ("", "", False),
    "AA-1": ("AAbort", "start", False),
    "AA-2": ("", "stop", True),
    "AA-3": ("", "", True),
    "AA-4": ("", "", False),
    "AA-5": ("", "stop", False),
    "AA-6": ("", "", False),
    "AA-7": ("AAbort", "", False),
    "AA-8": ("AAbort", "start", False),
}
NOW = 1000.0


def _names(action: Action) -> str:
    return action.name.replace("_", "-")


def test_table_is_that_of_the_standard() -> None:
    ours = {}
    for (state, trigger), cell in TABLE.items():
        other = "" if cell.otherwise is None else f"or{cell.otherwise.value}"
        ours[state.value, trigger.value] = f"{_names(cell.action)}/{cell.next.value}{other}"
    assert ours == {key: cell for key, cell in CELLS.items() if cell != "-"}


def test_table_has_the_actions_that_pynetdicom_has() -> None:
    theirs = {
        (int(state[3:]), int(event[3:])): action
        for (event, state), action in TRANSITION_TABLE.items()
    }
    assert {(s.value, t.value): _names(c.action) for (s, t), c in TABLE.items()} == theirs


def test_a_pdu_in_a_wrong_state_is_treated_as_an_invalid_one() -> None:
    """Connection relies on it: it reports all of them as Evt19."""
    wrong = {Action.AA_1, Action.AA_7, Action.AA_8}
    for (state, trigger), cell in TABLE.items():
        if trigger.name.endswith("_PDU") and cell.action in wrong:
            assert cell.action is TABLE[state, Trigger.INVALID_PDU].action


AC_PDU = encode_pdu(
    accept_request(
        request(),
        negotiate(request(), lambda context: (0, context.transfer_syntaxes[0])),
        UserInformation(),
    )
)
PDUS = {
    Trigger.ASSOCIATE_AC_PDU: AC_PDU,
    Trigger.ASSOCIATE_RJ_PDU: encode_pdu(AAssociateRJ(1, 1, 1)),
    Trigger.ASSOCIATE_RQ_PDU: encode_pdu(request()),
    Trigger.P_DATA_TF_PDU: data_pdu(b"some data"),
    Trigger.RELEASE_RQ_PDU: encode_pdu(AReleaseRQ()),
    Trigger.RELEASE_RP_PDU: encode_pdu(AReleaseRP()),
    Trigger.ABORT_PDU: encode_pdu(AAbort(2, 1)),
    Trigger.INVALID_PDU: bytes.fromhex("63 00 00000004 00000000"),
}


def _ac(side: Side) -> AAssociateAC:
    pdu = decode_pdu(AC_PDU)
    assert isinstance(pdu, AAssociateAC)
    return pdu


REQUESTS: dict[Trigger, Callable[[Side], None]] = {
    Trigger.ASSOCIATE_REQUEST: lambda s: s.connection.associate(request(), NOW),
    Trigger.ASSOCIATE_RESPONSE_ACCEPT: lambda s: s.connection.accept(_ac(s), NOW),
    Trigger.ASSOCIATE_RESPONSE_REJECT: lambda s: s.connection.reject(AAssociateRJ(1, 1, 1), NOW),
    Trigger.RELEASE_REQUEST: lambda s: s.connection.release(NOW),
    Trigger.RELEASE_RESPONSE: lambda s: s.connection.reply_release(NOW),
    Trigger.ABORT_REQUEST: lambda s: s.connection.abort(
        AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, NOW
    ),
}
STATES = range(1, 14)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("trigger", REQUESTS, ids=lambda t: t.name)
def test_requests(trigger: Trigger, state: int) -> None:
    side = in_state(state)
    if trigger is Trigger.ASSOCIATE_REQUEST and state == 1:
        # Without transport, to stop in Sta4; in_state(1) has it and would go on to Sta5.
        side = in_state(4)
        _check(side, "AE-1/4", deadline=None)
        return
    before = side.connection.deadline
    cell = CELLS[state, trigger.value]
    if cell == "-":
        with pytest.raises(LocalProtocolError):
            REQUESTS[trigger](side)
        _unchanged(side, state, before)
    else:
        REQUESTS[trigger](side)
        _check(side, cell, before)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("state", [n for n in STATES if n not in (1, 4)])
@pytest.mark.parametrize("trigger", PDUS, ids=lambda t: t.name)
def test_pdus_from_the_peer(trigger: Trigger, state: int, step: int) -> None:
    side = in_state(state)
    before = side.connection.deadline
    cell = CELLS[state, trigger.value]
    events = side.feed(PDUS[trigger], step, now=NOW)
    if trigger is Trigger.RELEASE_RQ_PDU and state == 7:
        cell = "AR-8/9"  # in_state(7) is a requestor; the acceptor is tested with collisions
    if cell.startswith(("AA-1", "AA-7", "AA-8")):
        _check_abort(side, cell, trigger)
    else:
        _check(side, cell.replace("or13", ""), before)
    _check_events(side, cell.partition("/")[0], trigger, events)


def _check_abort(side: Side, cell: str, trigger: Trigger) -> None:
    """AA-1 aborts as the service user, without a reason; the others as the provider, with one."""
    reason = 1 if trigger is Trigger.INVALID_PDU else 2
    expected = AAbort(0, 0) if cell.startswith("AA-1") else AAbort(2, reason)
    assert decode_pdu(side.connection.data_to_send()) == expected
    assert side.connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    restarted = not cell.startswith("AA-7")  # in Sta13 the timer runs on from when it started
    assert side.connection.deadline == (NOW + ARTIM if restarted else ARTIM)
    assert not side.connection.want_close


def _check_events(side: Side, action: str, trigger: Trigger, events: list[Event]) -> None:
    expected: list[Event]
    match action:
        case "AE-3":
            expected = [AssociateAccepted(_ac(side))]
            rq = side.connection.request
            assert rq is not None
            assert side.connection.contexts == accepted(rq, _ac(side))
        case "AE-4":
            expected = [AssociateRejected(AAssociateRJ(1, 1, 1))]
        case "AE-6":
            pdu = decode_pdu(PDUS[trigger])
            assert isinstance(pdu, AAssociateRQ)
            expected = [AssociateRequested(pdu)]
        case "AR-2" | "AR-8":
            expected = [ReleaseRequested(collision=action == "AR-8")]
        case "AR-3" | "AR-10":
            expected = [ReleaseReplied()]
        case "AA-3":
            expected = [PeerAborted(2, 1)]
        case "AA-1" | "AA-8":
            (event,) = events
            assert isinstance(event, ProtocolFailed)
            invalid = trigger is Trigger.INVALID_PDU
            assert event.error.source is AbortSource.SERVICE_PROVIDER
            assert event.error.reason is (
                AbortReason.UNRECOGNIZED_PDU if invalid else AbortReason.UNEXPECTED_PDU
            )
            return
        case _:
            expected = []
    assert events == expected
    delivered = [(3, 2, b"some data")] if action in ("DT-2", "AR-6") else []
    assert side.values.done == delivered


@pytest.mark.parametrize("trigger", PDUS, ids=lambda t: t.name)
def test_bytes_before_the_transport_is_there_are_ignored(trigger: Trigger) -> None:
    side = in_state(4)
    assert side.feed(PDUS[trigger]) == []
    _unchanged(side, 4, None)


@pytest.mark.parametrize("trigger", PDUS, ids=lambda t: t.name)
def test_a_server_that_speaks_before_it_is_asked_is_no_dicom_peer(trigger: Trigger) -> None:
    side = in_state(1)
    (event,) = side.feed(PDUS[trigger])
    assert isinstance(event, ProtocolFailed)
    assert side.connection.want_close
    assert side.connection.data_to_send() == b""
    with pytest.raises(LocalProtocolError):
        side.connection.associate(request(), NOW)


@pytest.mark.parametrize("state", STATES)
def test_p_data_request(state: int) -> None:
    assert in_state(state).connection.can_send_data is (CELLS[state, 9] != "-")


@pytest.mark.parametrize("state", STATES)
def test_what_may_be_asked(state: int) -> None:
    connection = in_state(state).connection
    assert connection.can_release is (CELLS[state, 11] != "-")
    assert connection.can_reply_release is (CELLS[state, 14] != "-")
    assert connection.can_abort is (CELLS[state, 15] != "-")


@pytest.mark.parametrize("state", STATES)
def test_transport_closed(state: int) -> None:
    side = in_state(state)
    events = side.connection.transport_closed(NOW)
    cell = CELLS[state, 17]
    assert events == ([TransportClosed()] if cell.startswith("AA-4") else [])
    assert side.connection.state is State.STA1_IDLE
    assert side.connection.deadline is None
    assert side.connection.transport_closed(NOW) == []
    assert side.feed(data_pdu(b"late")) == []


@pytest.mark.parametrize("state", STATES)
def test_timer_expired(state: int) -> None:
    side = in_state(state)
    deadline = side.connection.deadline
    assert (deadline is not None) is (CELLS[state, 18] != "-")
    if deadline is None:
        assert side.connection.timer_expired(NOW) == []
        _unchanged(side, state, None)
    else:
        assert side.connection.timer_expired(deadline - 0.001) == []
        _unchanged(side, state, deadline)
        assert side.connection.timer_expired(deadline) == [ArtimExpired(State(state))]
        _check(side, CELLS[state, 18], deadline)


@pytest.mark.parametrize("state", STATES)
def test_transport_connected(state: int) -> None:
    side = in_state(state)
    if state == 4:
        side.connection.transport_connected(NOW)
        _check(side, CELLS[4, 2], None)
    else:
        before = side.connection.deadline
        with pytest.raises(LocalProtocolError):
            side.connection.transport_connected(NOW)
        _unchanged(side, state, before)


def test_transport_indication_starts_artim() -> None:
    side = in_state(2)
    assert side.connection.deadline == ARTIM


def _check(side: Side, cell: str, deadline: float | None) -> None:
    """State, output, timer and closing after a cell such as ``AA-8/13``."""
    action, _, following = cell.partition("/")
    sends, timer, closes = DOES[action]
    connection = side.connection
    assert connection.state is State(int(following))
    output = connection.data_to_send()
    assert (type(decode_pdu(output)).__name__ if output else "") == sends
    if timer == "start":
        deadline = NOW + ARTIM
    elif timer == "stop":
        deadline = None
    assert connection.deadline == deadline
    assert connection.want_close is closes


def _unchanged(side: Side, state: int, deadline: float | None) -> None:
    assert side.connection.state is State(state)
    assert side.connection.deadline == deadline
    assert side.connection.data_to_send() == b""
    assert not side.connection.want_close


@pytest.mark.parametrize("state", STATES)
def test_a_request_that_cannot_be_encoded_changes_nothing(state: int) -> None:
    side = in_state(state)
    before = side.connection.deadline
    with pytest.raises(LocalProtocolError):
        side.connection.associate(request(called_ae_title="X" * 17), NOW)
    with pytest.raises(LocalProtocolError):
        side.connection.reject(AAssociateRJ(256, 1, 1), NOW)
    _unchanged(side, state, before)
