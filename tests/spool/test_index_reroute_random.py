"""Long random lives with everything that operators may order: the account balances all the way."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from router.spool import sqlite
from router.spool.index import Filter, Index
from router.spool.index_check import disagreement
from router.spool.index_commitments import Refusal
from router.spool.index_duplicates import SameBytes
from router.spool.index_hours import account_since
from router.spool.index_types import DeliveryState
from router.spool.plan import Plan
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    HELD,
    READY,
    T0,
    UNCOMMITTED,
    add,
    meta,
    ref,
    same,
)
from tests.spool.index_samples import outcome as ended

NAMES = ("pacs", "vna", "tele")
PLANS = (
    Plan(),
    Plan(),
    Plan(after="study-complete"),
    Plan(schedule="night"),
    Plan(mode="failover", members=("pacs", "vna"), after="study-complete", schedule="night"),
)


class _Life:
    def __init__(self, index: Index, seed: int) -> None:
        self.index = index
        self.random = Random(seed)
        self.number = 0
        self.now = T0
        self.index_asked = 0

    def which(self) -> Filter:
        random = self.random
        ids = tuple(random.randint(1, self.number + 1) for _ in range(random.randint(1, 12)))
        return random.choice(
            [Filter(), Filter(ids=ids), Filter(study=random.choice(["1.1", "1.2"]))]
        )

    def arrive(self) -> None:
        random = self.random
        entries = []
        for _ in range(random.randint(1, 6)):
            self.number += 1
            names = random.sample(NAMES, random.choice([0, 1, 1, 2]))
            of = random.randint(max(1, self.number - 4), self.number)  # repeats an earlier one
            study = ("1.1", "1.2", "")[of % 3]
            what = "" if names else random.choice(["hold", "discard"])
            plan = random.choice(PLANS)
            if len(names) > 1 and plan.members:
                plan = Plan()
            one = meta(
                self.number,
                *names,
                uid=f"1.5.{of}",
                study=study,
                plan=plan,
                disposition=what,
                at=self.now,
            )
            entries.append((ref(self.number, crc=of), one))
        add(self.index, *entries)

    def settle(self) -> None:
        random, name = self.random, self.random.choice(NAMES)
        states = [READY, DELIVERED, DELIVERED, UNCOMMITTED, UNCOMMITTED, DEAD, DROPPED]
        found = self.index.lease(name, random.randint(1, 8), self.now + 1e9, [])
        self.index.settle(
            [
                ended(w.ref.id, name, random.choice(states), at=self.now, due_at=self.now + 9)
                for w in found
            ]
        )

    def same_bytes(self) -> SameBytes | None:
        """That duplicates are suppressed, or not."""
        return self.random.choice([None, same, same])

    def redirect(self) -> None:
        random = self.random
        origin, target = random.sample(NAMES, 2)
        which = Filter(destination=origin, state=random.choice([None, READY, HELD, DEAD]))
        exclude = random.sample(range(1, self.number + 2), min(3, self.number))
        self.index.redirect(which, target, "so", exclude, at=self.now, same_bytes=self.same_bytes())

    def resend(self) -> None:
        names = self.random.sample(NAMES, self.random.choice([1, 2]))
        rule, same_bytes = "by an operator", self.same_bytes()
        self.index.resend(self.which(), names, rule, at=self.now, same_bytes=same_bytes)

    def decide(self) -> None:
        held = self.index.instances(Filter(), 500)
        decided = []
        for row in self.random.sample(held, min(5, len(held))):
            names = self.random.sample(NAMES, self.random.choice([0, 1, 2]))
            word = "" if names else self.random.choice(["hold", "discard"])
            new = meta(
                row.ref.id,
                *names,
                uid=row.meta.sop_instance_uid,
                study=row.meta.study_instance_uid,
                plan=self.random.choice(PLANS[:4]),
                disposition=word,
            )
            decided.append((row.ref.id, new))
        self.index.route_anew(decided, at=self.now, same_bytes=self.same_bytes())

    def order(self) -> None:
        index, at = self.index, self.now
        name = self.random.choice(["retry", "ask_again", "hasten", "hold", "release"])
        if self.random.random() < 0.2:
            state = self.random.choice([None, None, UNCOMMITTED, HELD])
            index.drop(replace(self.which(), state=state), "no", at=at)
        else:
            getattr(index, name)(self.which(), at=at)

    def commit(self) -> None:
        """Ask a destination, or hear what it says: of another time, of others, of nothing."""
        random, name = self.random, self.random.choice(NAMES)
        commitments, at, uid = self.index.commitments, self.now, f"2.25.{self.index_asked + 1}"
        what = random.random()
        if what < 0.1:
            commitments.accept(name, "any more", at, 3)
        elif what < 0.2:
            commitments.give_up(name, at - 4000.0, "too long", at)
        elif what < 0.6:
            made = commitments.ask_again(name, uid, at, at + 900.0) if what < 0.4 else None
            if made is None:
                made = commitments.ask(name, uid, random.randint(1, 6), at, at + 900.0)
            self.index_asked += made is not None
            assert made is None or made.references, "nothing is not asked for"
        else:
            words = [f"1.5.{n}" for n in range(max(1, self.number - 20), self.number + 1)]
            refused = {
                w: Refusal("no", random.random() < 0.7) for w in words if random.random() < 0.3
            }
            some = [w for w in words if random.random() < 0.6]
            old = f"2.25.{random.randint(1, self.index_asked + 1)}"
            commitments.answer(old, some, refused, at=at, most=dict.fromkeys(NAMES, 1), words="yes")

    def gates(self) -> None:
        found = self.index.gates()
        for gate in self.random.sample(found, min(2, len(found))):
            self.index.open_gate(gate.id, self.random.randint(1, 5))
        if self.random.random() < 0.3:
            self.index.shut_gate(None, "night")

    def purge(self) -> None:
        self.index.purge(self.now, self.random.randint(1, 20))


def assert_kept(path: Path) -> None:
    """What may go is what nobody has to do with any more, told by the rows alone; and what was
    asked for is only what was taken."""
    with closing(sqlite.connect(path)) as rows:
        for sql in (_MAY_GO_AND_WAITS, _STAYS_FOR_NOTHING, _ASKED_FOR_AND_NOT_TAKEN):
            assert rows.execute(sql).fetchall() == []


_WAITS = """
SELECT 1 FROM delivery AS d LEFT JOIN delivery AS o
    ON o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
WHERE d.instance_id = i.id AND (d.state IN (0, 1, 2, 6) OR d.state = 5 AND o.state IN (0, 1, 6))
"""
_MAY_GO_AND_WAITS = f"""
SELECT id FROM instance AS i WHERE settled_at IS NOT NULL
    AND (disposition IN (1, 2) OR EXISTS ({_WAITS}))
"""
_STAYS_FOR_NOTHING = f"""
SELECT id FROM instance AS i
WHERE settled_at IS NULL AND disposition NOT IN (1, 2) AND NOT EXISTS ({_WAITS})
"""
_ASKED_FOR_AND_NOT_TAKEN = """
SELECT instance_id FROM delivery WHERE commitment_id IS NOT NULL AND state <> 6
"""


@pytest.mark.parametrize("seed", range(8))
def test_the_account_balances_whatever_is_ordered(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    life = _Life(index, seed)
    steps = [
        *(life.arrive, life.arrive, life.settle, life.settle, life.settle, life.redirect),
        *(life.resend, life.decide, life.order, life.gates, life.purge),
        *(life.commit, life.commit, life.commit),
    ]
    for _ in range(150):
        life.now += life.random.choice([1.0, 60.0, 2000.0])
        step = life.random.choice(steps)
        step()
        account = index.account(audit=True)
        assert account.differences == {}, step.__name__
        assert disagreement(index._db) == "", step.__name__
        assert_kept(path)
    since = account_since(path, 0.0)
    assert since.balanced
    assert since.received == life.number
    assert since.destinations == {
        name: line for name, line in index.account().destinations.items() if line.received
    }
    assert sum(line.uncommitted for line in since.destinations.values()) == len(
        index.queue_list(Filter(state=UNCOMMITTED), 10_000)
    )
    # What is taken and in no transaction any more is asked for: nobody is forgotten.
    every = [f"1.5.{n}" for n in range(1, life.number + 1)]
    end = life.now + 1e9
    for name in NAMES:
        for number in range(1000):
            uid = f"2.26.{name}.{number}"
            made = index.commitments.ask_again(name, uid, end, end + 1e9)
            made = made or index.commitments.ask(name, uid, 9, end, end + 1e9)
            if made is None:
                break
            index.commitments.answer(uid, every, {}, at=life.now, most={}, words="yes")
    assert index.commitments.waiting_at() == []
    # Once nothing waits any more all of it may go: nothing was left behind.
    index.hasten(Filter(), at=life.now)
    index.drop(Filter(), "the end", at=life.now)
    index.drop(Filter(state=DeliveryState.DEAD), "the end", at=life.now)
    index.discard_held(Filter(), "the end", at=life.now)
    index.purge(life.now + 1.0, 10_000)
    assert index.instances(Filter(), 5) == []
    index.close()
