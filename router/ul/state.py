"""The state machine of PS3.8 §9.2 as data: states, triggers, actions and table 9-10.

Owns what happens when; `connection` carries it out.  Must not know bytes, sockets or roles: the
table is the same for requestor and acceptor.
"""

from enum import Enum, IntEnum, auto
from typing import Literal, NamedTuple


class State(IntEnum):
    """Sta1 to Sta13 of PS3.8 tables 9-1 to 9-5; the value is the number."""

    STA1_IDLE = 1
    STA2_AWAITING_ASSOCIATE_RQ = 2
    STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE = 3
    STA4_AWAITING_TRANSPORT_CONNECTION = 4
    STA5_AWAITING_ASSOCIATE_REPLY = 5
    STA6_DATA_TRANSFER = 6
    STA7_AWAITING_RELEASE_RP = 7
    STA8_AWAITING_LOCAL_RELEASE_RESPONSE = 8
    STA9_COLLISION_REQUESTOR_AWAITING_LOCAL_RESPONSE = 9
    STA10_COLLISION_ACCEPTOR_AWAITING_RELEASE_RP = 10
    STA11_COLLISION_REQUESTOR_AWAITING_RELEASE_RP = 11
    STA12_COLLISION_ACCEPTOR_AWAITING_LOCAL_RESPONSE = 12
    STA13_AWAITING_TRANSPORT_CLOSE = 13


class Trigger(IntEnum):
    """Evt1 to Evt19, the rows of PS3.8 table 9-10; the value is the number.

    ``REQUEST`` and ``RESPONSE`` come from the local user, ``PDU`` from the peer.
    """

    ASSOCIATE_REQUEST = 1
    TRANSPORT_CONFIRM = 2
    ASSOCIATE_AC_PDU = 3
    ASSOCIATE_RJ_PDU = 4
    TRANSPORT_INDICATION = 5
    ASSOCIATE_RQ_PDU = 6
    ASSOCIATE_RESPONSE_ACCEPT = 7
    ASSOCIATE_RESPONSE_REJECT = 8
    P_DATA_REQUEST = 9
    P_DATA_TF_PDU = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_PDU = 12
    RELEASE_RP_PDU = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_PDU = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """The actions of PS3.8 tables 9-6 to 9-9."""

    AE_1 = auto()
    AE_2 = auto()
    AE_3 = auto()
    AE_4 = auto()
    AE_5 = auto()
    AE_6 = auto()
    AE_7 = auto()
    AE_8 = auto()
    DT_1 = auto()
    DT_2 = auto()
    AR_1 = auto()
    AR_2 = auto()
    AR_3 = auto()
    AR_4 = auto()
    AR_5 = auto()
    AR_6 = auto()
    AR_7 = auto()
    AR_8 = auto()
    AR_9 = auto()
    AR_10 = auto()
    AA_1 = auto()
    AA_2 = auto()
    AA_3 = auto()
    AA_4 = auto()
    AA_5 = auto()
    AA_6 = auto()
    AA_7 = auto()
    AA_8 = auto()


class Effect(NamedTuple):
    """What an action does: send a PDU, start or stop ARTIM, close the transport, tell the user."""

    sends: bool = False
    timer: Literal["", "start", "stop"] = ""
    closes: bool = False
    tells: bool = False


EFFECTS: dict[Action, Effect] = {
    Action.AE_1: Effect(),
    Action.AE_2: Effect(sends=True),
    Action.AE_3: Effect(tells=True),
    Action.AE_4: Effect(tells=True, closes=True),
    Action.AE_5: Effect(timer="start"),
    Action.AE_6: Effect(timer="stop", tells=True),
    Action.AE_7: Effect(sends=True),
    Action.AE_8: Effect(sends=True, timer="start"),
    Action.DT_1: Effect(sends=True),
    Action.DT_2: Effect(tells=True),
    Action.AR_1: Effect(sends=True),
    Action.AR_2: Effect(tells=True),
    Action.AR_3: Effect(tells=True, closes=True),
    Action.AR_4: Effect(sends=True, timer="start"),
    Action.AR_5: Effect(timer="stop"),
    Action.AR_6: Effect(tells=True),
    Action.AR_7: Effect(sends=True),
    Action.AR_8: Effect(tells=True),
    Action.AR_9: Effect(sends=True),
    Action.AR_10: Effect(tells=True),
    Action.AA_1: Effect(sends=True, timer="start"),
    Action.AA_2: Effect(timer="stop", closes=True),
    Action.AA_3: Effect(tells=True, closes=True),
    Action.AA_4: Effect(tells=True),
    Action.AA_5: Effect(timer="stop"),
    Action.AA_6: Effect(),
    Action.AA_7: Effect(sends=True),
    Action.AA_8: Effect(sends=True, timer="start", tells=True),
}

REFUSAL = Effect(sends=True, timer="start", tells=True)
"""AE-6 when the service provider itself refuses: as AE-8, and the user is told."""


class Transition(NamedTuple):
    """A cell of table 9-10.  ``otherwise`` is the other next state where a cell has two: AE-6
    (the provider refuses the request) and AR-8 (release collision, on the acceptor)."""

    action: Action
    next: State
    otherwise: State | None = None


_S = {state.value: state for state in State}
_ASSOCIATED = range(5, 13)

# One row per trigger: (states, action, next state[, the other next state]).  Blank cells are
# left out; what a missing cell means depends on who caused the trigger, see Connection.
_ROWS: dict[Trigger, tuple[tuple[int | range, Action, int, int | None], ...]] = {
    Trigger.ASSOCIATE_REQUEST: ((1, Action.AE_1, 4, None),),
    Trigger.TRANSPORT_CONFIRM: ((4, Action.AE_2, 5, None),),
    Trigger.ASSOCIATE_AC_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (5, Action.AE_3, 6, None),
        (range(6, 13), Action.AA_8, 13, None),
        (13, Action.AA_6, 13, None),
    ),
    Trigger.ASSOCIATE_RJ_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (5, Action.AE_4, 1, None),
        (range(6, 13), Action.AA_8, 13, None),
        (13, Action.AA_6, 13, None),
    ),
    Trigger.TRANSPORT_INDICATION: ((1, Action.AE_5, 2, None),),
    Trigger.ASSOCIATE_RQ_PDU: (
        (2, Action.AE_6, 3, 13),
        (3, Action.AA_8, 13, None),
        (_ASSOCIATED, Action.AA_8, 13, None),
        (13, Action.AA_7, 13, None),
    ),
    Trigger.ASSOCIATE_RESPONSE_ACCEPT: ((3, Action.AE_7, 6, None),),
    Trigger.ASSOCIATE_RESPONSE_REJECT: ((3, Action.AE_8, 13, None),),
    Trigger.P_DATA_REQUEST: ((6, Action.DT_1, 6, None), (8, Action.AR_7, 8, None)),
    Trigger.P_DATA_TF_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (5, Action.AA_8, 13, None),
        (6, Action.DT_2, 6, None),
        (7, Action.AR_6, 7, None),
        (range(8, 13), Action.AA_8, 13, None),
        (13, Action.AA_6, 13, None),
    ),
    Trigger.RELEASE_REQUEST: ((6, Action.AR_1, 7, None),),
    Trigger.RELEASE_RQ_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (5, Action.AA_8, 13, None),
        (6, Action.AR_2, 8, None),
        (7, Action.AR_8, 9, 10),
        (range(8, 13), Action.AA_8, 13, None),
        (13, Action.AA_6, 13, None),
    ),
    Trigger.RELEASE_RP_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (range(5, 7), Action.AA_8, 13, None),
        (7, Action.AR_3, 1, None),
        (range(8, 10), Action.AA_8, 13, None),
        (10, Action.AR_10, 12, None),
        (11, Action.AR_3, 1, None),
        (12, Action.AA_8, 13, None),
        (13, Action.AA_6, 13, None),
    ),
    Trigger.RELEASE_RESPONSE: (
        (8, Action.AR_4, 13, None),
        (9, Action.AR_9, 11, None),
        (12, Action.AR_4, 13, None),
    ),
    Trigger.ABORT_REQUEST: (
        (3, Action.AA_1, 13, None),
        (4, Action.AA_2, 1, None),
        (_ASSOCIATED, Action.AA_1, 13, None),
    ),
    Trigger.ABORT_PDU: (
        (2, Action.AA_2, 1, None),
        (3, Action.AA_3, 1, None),
        (_ASSOCIATED, Action.AA_3, 1, None),
        (13, Action.AA_2, 1, None),
    ),
    Trigger.TRANSPORT_CLOSED: (
        (2, Action.AA_5, 1, None),
        (range(3, 13), Action.AA_4, 1, None),
        (13, Action.AR_5, 1, None),
    ),
    Trigger.ARTIM_EXPIRED: ((2, Action.AA_2, 1, None), (13, Action.AA_2, 1, None)),
    Trigger.INVALID_PDU: (
        (2, Action.AA_1, 13, None),
        (3, Action.AA_8, 13, None),
        (_ASSOCIATED, Action.AA_8, 13, None),
        (13, Action.AA_7, 13, None),
    ),
}


def _expand() -> dict[tuple[State, Trigger], Transition]:
    table: dict[tuple[State, Trigger], Transition] = {}
    for trigger, cells in _ROWS.items():
        for states, action, following, otherwise in cells:
            for number in states if isinstance(states, range) else (states,):
                table[_S[number], trigger] = Transition(
                    action, _S[following], None if otherwise is None else _S[otherwise]
                )
    return table


TABLE: dict[tuple[State, Trigger], Transition] = _expand()
"""PS3.8 table 9-10: what to do and where to go, by (state, trigger)."""


def _states_with(trigger: Trigger, *actions: Action) -> frozenset[State]:
    return frozenset(
        state for (state, t), cell in TABLE.items() if t is trigger and cell.action in actions
    )


SENDING = _states_with(Trigger.P_DATA_REQUEST, Action.DT_1, Action.AR_7)
"""States in which we may send P-DATA-TF."""

RECEIVING = _states_with(Trigger.P_DATA_TF_PDU, Action.DT_2, Action.AR_6)
"""States in which P-DATA-TF from the peer is delivered."""
