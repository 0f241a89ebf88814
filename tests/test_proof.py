"""Which destinations of a configuration are asked for commitment, and what that does to a queue."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from router.commitment.ports import NotAsked
from router.config.load import loads
from router.net.commitment import Commitment
from router.net.requestor import Requestor
from router.observe.counters import Counters
from router.proof import Proof
from router.spool.index import Index
from router.spool.index_commitments import Reference
from tests.net.acceptors import accept_any, scripted
from tests.net.support import Wire
from tests.spool.index_samples import DEAD, DELIVERED, READY, UNCOMMITTED, fill, outcome, state

CONFIG = """
local: [{ae_title: ROUTER, listen: "127.0.0.1:0", accept: any}]
remotes:
  a: {ae_title: A, host: 127.0.0.1, port: PORT, dimse_timeout: 200ms, commitment: true}
  b: {ae_title: B, host: 127.0.0.1}
  c: {ae_title: C, host: 127.0.0.1, commitment: false}
  d: {ae_title: D, commitment: true}
  e: {ae_title: E, host: 127.0.0.1, commitment: {confirm: find, batch: 7, after: 1m}}
rules: [{name: one, to: [a, b, c, e]}]
"""
REFERENCE = Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2", "1.2.1")


class Here:
    """The index's thread is this one."""

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)


class Free:
    """Nothing stands in the way of calling anybody."""

    held_changed: Callable[[str], None]

    def held(self, destination: str) -> None:
        return None

    async def aside(
        self, destination: str, connect: Callable[[], Awaitable[Requestor]]
    ) -> Requestor:
        return await connect()


def nothing_again(destination: str, count: int) -> None:
    raise AssertionError("nothing is to be sent again here")


def perhaps_again(destination: str, count: int) -> None:
    """Of one that was stopped amid something nobody knows."""
    assert (destination, count) == ("a", 1)


def with_proof(
    path: Path,
    main: Callable[[Proof, Index], Coroutine[Any, Any, None]],
    again: Callable[[str, int], None] = nothing_again,
) -> None:
    async def whole() -> None:
        index = Index.open(path / "index.db")
        proof = Proof(lambda: index.commitments, Here(), Counters(), Free, again)
        await main(proof, index)
        await proof.stop()
        index.close()

    asyncio.run(whole())


def config(port: int = 9) -> Any:
    return loads(CONFIG.replace("PORT", str(port)), "c.yaml", {}).config


def test_true_is_the_defaults_and_false_is_none() -> None:
    remotes = config().remotes
    assert remotes["a"].commitment == Commitment()
    assert remotes["b"].commitment is None
    assert remotes["c"].commitment is None
    assert (remotes["e"].commitment.batch, remotes["e"].commitment.after) == (7, 60.0)


def test_only_what_was_delivered_to_those_that_are_asked_is_uncommitted(tmp_path: Path) -> None:
    async def main(proof: Proof, _: Index) -> None:
        others = [outcome(n, name, DELIVERED) for n, name in enumerate("bcd")]
        assert proof.pending([*others]) == others, "before it was configured"
        proof.start(config())
        assert sorted(proof.snapshot()) == ["a", "e"]
        assert proof.pending(others) is others
        mixed = [outcome(1, name, fate) for name in "ae" for fate in (DELIVERED, DEAD, READY)]
        assert [o.state for o in proof.pending([*mixed, *others])] == [
            *(UNCOMMITTED, DEAD, READY) * 2,
            *(DELIVERED,) * 3,
        ]
        assert proof.awaited()

    with_proof(tmp_path, main)


def test_what_is_on_its_way_to_one_that_is_taken_out_is_uncommitted(tmp_path: Path) -> None:
    """It is answered after the reload, and nobody will be asked whether it was kept."""

    async def main(proof: Proof, index: Index) -> None:
        proof.start(config())
        fill(index, [1], "a")
        for gone in ("  a: {.*}\n", "host: 127.0.0.1, port: PORT, "):
            other = re.sub(gone, "", CONFIG).replace("to: [a, ", "to: [")
            proof.configure(loads(other, "c.yaml", {}).config)
            (taken,) = proof.pending([outcome(1, "a", DELIVERED)])
            assert taken.state is UNCOMMITTED
        index.settle([taken])
        proof.settled([taken])
        await asyncio.sleep(0.05)
        assert state(index, 1, "a") is UNCOMMITTED, "it waits until it is configured again"
        none = CONFIG.replace("PORT", "9").replace("200ms, commitment: true", "200ms")
        proof.configure(loads(none, "c.yaml", {}).config)
        assert proof.pending([outcome(1, "a", DELIVERED)])[0].state is DELIVERED

    with_proof(tmp_path, main, perhaps_again)


def test_another_configuration_settles_what_waited(tmp_path: Path) -> None:
    async def main(proof: Proof, index: Index) -> None:
        fill(index, [1], "a")
        index.settle([outcome(1, "a", UNCOMMITTED)])
        proof.start(config())
        none = re.sub(r", commitment: (true|false|{.*?})", "", CONFIG.replace("PORT", "9"))
        await asyncio.sleep(0)
        assert state(index, 1, "a") is UNCOMMITTED
        proof.configure(loads(none, "c.yaml", {}).config)
        assert not proof.awaited()
        while state(index, 1, "a") is not DELIVERED:
            await asyncio.sleep(0)

    with_proof(tmp_path, main, perhaps_again)


async def refuse_all(wire: Wire) -> None:
    await wire.pdu()


async def silent(wire: Wire) -> None:
    await accept_any(wire)
    while await wire.pdu() is not None:
        pass


@pytest.mark.parametrize(
    ("behaviour", "text"), [(refuse_all, "closed the connection"), (silent, "was silent for")]
)
def test_an_archive_that_answers_no_query_is_told(
    tmp_path: Path, behaviour: Any, text: str
) -> None:
    async def main(proof: Proof, index: Index) -> None:
        async with scripted(behaviour) as port:
            (one, *_) = proof._configs(config(port))
            with pytest.raises(NotAsked, match=text):
                await one.look([REFERENCE])

    with_proof(tmp_path, main)
