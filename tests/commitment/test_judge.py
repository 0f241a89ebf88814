"""What counts as safe, for each setting and state."""

from dataclasses import replace

import pytest

from router.commitment.dataset import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_OBJECT_INSTANCE,
    PROCESSING_FAILURE,
)
from router.commitment.judge import COMMITTED, in_question, judge
from router.commitment.settings import CommitmentSettings
from router.spool.index_promises import Kept
from router.spool.index_types import DeliveryState as S
from router.spool.index_types import Disposition

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
WAIT = None


def kept(disposition: Disposition = Disposition.ROUTED, *, of: str = CT, **deliveries: S) -> Kept:
    return Kept(1, of, "1.2.3", disposition, deliveries)


def verdict(
    *instances: Kept,
    age: float = 0.0,
    destinations: tuple[str, ...] = (),
    when: str = "safe",
    doubted: int = 0,
) -> int | None:
    settings = CommitmentSettings.model_validate(
        {"when": when, "destinations": destinations, "grace": 60, "wait": 3600}
    )
    return judge(settings, CT, instances, age, doubted)


@pytest.mark.parametrize("when", ["safe", "delivered", "committed"])
def test_what_is_not_known(when: str) -> None:
    assert verdict(when=when, age=59) is WAIT
    assert verdict(when=when, age=60) == NO_SUCH_OBJECT_INSTANCE
    assert verdict(kept(of=MR), when=when) == CLASS_INSTANCE_CONFLICT
    assert verdict(kept(Disposition.DISCARDED), when=when) == NO_SUCH_OBJECT_INSTANCE


def test_safe_and_not_on_the_disk() -> None:
    gone = replace(kept(pacs=S.READY), present=False)
    assert verdict(gone) == PROCESSING_FAILURE
    assert verdict(replace(gone, deliveries={"pacs": S.DELIVERED})) == PROCESSING_FAILURE
    assert verdict(gone, kept(pacs=S.READY)) == COMMITTED, "the same bytes came twice"
    older = replace(kept(pacs=S.READY), instance_id=0, content=(1, 1))
    assert verdict(older, gone) == PROCESSING_FAILURE, "another object is not what is asked for"
    unknown = replace(gone, present=None)
    assert verdict(unknown, age=59) is WAIT
    assert verdict(unknown, age=60) == PROCESSING_FAILURE
    assert verdict(gone, when="delivered") is WAIT


@pytest.mark.parametrize(("when", "longest"), [("safe", 60), ("delivered", 3600)])
def test_the_last_of_a_uid_may_be_where_the_start_could_not_read(when: str, longest: int) -> None:
    known = kept(pacs=S.DELIVERED)
    assert verdict(known, when=when, doubted=1, age=longest - 1) is WAIT
    assert verdict(known, when=when, doubted=1, age=longest) == PROCESSING_FAILURE
    later = replace(known, instance_id=2, content=(1, 1))
    assert verdict(known, later, when=when, doubted=1) == COMMITTED
    same = replace(known, instance_id=2)
    assert verdict(known, same, when=when, doubted=1) == COMMITTED


def test_what_a_promise_rests_on() -> None:
    safe = CommitmentSettings.model_validate({"when": "safe"})
    here, other = kept(pacs=S.READY), replace(kept(pacs=S.HELD), instance_id=2)
    assert in_question(safe, CT, [here, other]) == [here, other]
    assert not in_question(safe, CT, [])
    assert not in_question(safe, MR, [here])
    assert not in_question(safe, CT, [here, replace(other, deliveries={"pacs": S.DELIVERED})])
    assert not in_question(safe, CT, [replace(here, damaged=True)])
    assert not in_question(safe, CT, [kept(Disposition.DISCARDED)])
    delivered = CommitmentSettings.model_validate({"when": "delivered"})
    assert not in_question(delivered, CT, [here])


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (kept(pacs=S.READY), COMMITTED),
        (kept(pacs=S.DEAD), COMMITTED),
        (kept(pacs=S.HELD), COMMITTED),
        (kept(pacs=S.DELIVERED), COMMITTED),
        (kept(Disposition.HELD), COMMITTED),
        (kept(Disposition.QUARANTINED), COMMITTED),
        (kept(pacs=S.DROPPED), PROCESSING_FAILURE),
        (kept(pacs=S.DROPPED, vna=S.READY), COMMITTED),
        (replace(kept(Disposition.QUARANTINED), damaged=True), PROCESSING_FAILURE),
        (replace(kept(pacs=S.DEAD), damaged=True), PROCESSING_FAILURE),
    ],
)
def test_safe_here(one: Kept, expected: int | None) -> None:
    assert verdict(one) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (kept(pacs=S.READY), WAIT),
        (kept(pacs=S.HELD), WAIT),
        (kept(pacs=S.DEAD), PROCESSING_FAILURE),
        (kept(pacs=S.DROPPED), PROCESSING_FAILURE),
        (kept(pacs=S.DUPLICATE), PROCESSING_FAILURE),
        (kept(pacs=S.DELIVERED), COMMITTED),
        (kept(pacs=S.UNCOMMITTED), COMMITTED),
        (kept(pacs=S.DELIVERED, vna=S.READY), WAIT),
        (kept(pacs=S.DELIVERED, vna=S.DEAD), PROCESSING_FAILURE),
        (kept(Disposition.HELD), WAIT),
    ],
)
def test_delivered_everywhere(one: Kept, expected: int | None) -> None:
    assert verdict(one, when="delivered") == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (kept(pacs=S.DELIVERED, vna=S.READY), COMMITTED),
        (kept(pacs=S.READY, vna=S.DELIVERED), WAIT),
        (kept(vna=S.DELIVERED), PROCESSING_FAILURE),
        (kept(mirror=S.DELIVERED), COMMITTED),
        (kept(mirror=S.DELIVERED, pacs=S.READY), WAIT),
    ],
)
def test_delivered_at_those_that_count(one: Kept, expected: int | None) -> None:
    assert verdict(one, when="delivered", destinations=("pacs", "mirror")) == expected


def test_committed_there() -> None:
    named = ("pacs",)
    assert verdict(kept(pacs=S.UNCOMMITTED), when="committed", destinations=named) is WAIT
    proven = replace(kept(pacs=S.DELIVERED), proven=frozenset({"pacs"}))
    assert verdict(proven, when="committed", destinations=named) == COMMITTED


def test_what_was_delivered_while_nobody_asked_for_proof_is_not_committed_there() -> None:
    both = kept(pacs=S.DELIVERED, vna=S.DELIVERED)
    one = replace(both, proven=frozenset({"vna"}))
    assert verdict(both, when="committed", destinations=("pacs",)) == PROCESSING_FAILURE
    assert verdict(one, when="committed", destinations=("pacs", "vna")) == PROCESSING_FAILURE
    assert verdict(one, when="committed", destinations=("vna",)) == COMMITTED
    assert verdict(both, when="delivered", destinations=("pacs",)) == COMMITTED


def test_it_is_not_waited_for_for_ever() -> None:
    waiting = kept(pacs=S.READY)
    assert verdict(waiting, when="delivered", age=3599) is WAIT
    assert verdict(waiting, when="delivered", age=3600) == PROCESSING_FAILURE


def test_one_copy_is_enough() -> None:
    good, bad = kept(pacs=S.DELIVERED), kept(pacs=S.DEAD)
    assert verdict(bad, good, when="delivered") == COMMITTED
    assert verdict(bad, kept(pacs=S.READY), when="delivered") is WAIT
    assert verdict(kept(of=MR, pacs=S.DELIVERED), bad, when="delivered") == PROCESSING_FAILURE


@pytest.mark.parametrize("when", ["safe", "delivered", "committed"])
@pytest.mark.parametrize("disposition", [Disposition.QUARANTINED, Disposition.ROUTED])
def test_what_is_damaged_is_never_committed(when: str, disposition: Disposition) -> None:
    torn = Kept(2, CT, "1.2.3", disposition, {}, (10, 2), damaged=True, torn=True)
    sound = Kept(1, CT, "1.2.3", Disposition.ROUTED, {"pacs": S.DELIVERED}, (10, 1))
    sound = replace(sound, proven=frozenset({"pacs"}))
    assert verdict(torn, when=when) == PROCESSING_FAILURE
    assert verdict(sound, torn, when=when) == COMMITTED, "it may never have been acknowledged"
    later = replace(torn, torn=False)
    assert verdict(sound, later, when=when) == PROCESSING_FAILURE, "it was whole at first"
    again = replace(later, instance_id=3, damaged=False, deliveries=sound.deliveries)
    again = replace(again, disposition=Disposition.ROUTED, proven=sound.proven)
    assert verdict(sound, later, again, when=when) == COMMITTED, "the same bytes came again"


def test_of_two_objects_with_one_uid_the_last_is_meant() -> None:
    first = Kept(1, CT, "1.2.3", Disposition.ROUTED, {"pacs": S.DELIVERED}, (10, 1))
    other = Kept(2, CT, "1.2.3", Disposition.ROUTED, {"pacs": S.DEAD}, (10, 2))
    again = Kept(3, CT, "1.2.3", Disposition.ROUTED, {"pacs": S.DEAD}, (10, 1))
    assert verdict(first, other, when="delivered") == PROCESSING_FAILURE
    assert verdict(other, first, again, when="delivered") == COMMITTED
