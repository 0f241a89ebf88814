"""One destination that is down costs the other nothing, and neither loses anything."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from perf.witness import WitnessThread
from tests.e2e.running import Start
from tests.interop.corpus import variants
from tests.interop.peers import Program, dcmsend_command
from tests.interop.settings import destination, route_to_all, settled

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

FILES = 1000
SENDERS = 4
LARGEST = 200_000


def test_nothing_is_lost_while_one_of_two_destinations_is_down(
    tmp_path: Path, start_gateway: Start
) -> None:
    paths = variants(tmp_path / "files", FILES, LARGEST)
    with WitnessThread() as reference, WitnessThread() as alive, WitnessThread() as down:
        gateway = start_gateway(
            route_to_all(
                {
                    "alive": destination(alive.port),
                    "down": destination(down.port, associations=4),
                }
            )
        )
        down.shut()
        with ExitStack() as stack:
            senders = [
                stack.enter_context(Program(dcmsend_command(gateway.port, paths[n::SENDERS])))
                for n in range(SENDERS)
            ]
            assert alive.wait(lambda seen: seen.total() >= FILES // 2, 120)
            assert down.seen().total() == 0
            down.open()
            assert [sender.wait(120) for sender in senders] == [0] * SENDERS
        with ExitStack() as stack:
            for n in range(SENDERS):
                program = Program(dcmsend_command(reference.port, paths[n::SENDERS]))
                stack.enter_context(program).wait(120)
        assert settled(gateway, FILES)
        sent = reference.seen()
        assert len(sent) == FILES
        assert alive.seen() == sent
        assert down.seen() == sent
        account = gateway.account()
        assert account["balanced"]
        assert {d["destination"]: d["delivered"] for d in account["destinations"]} == {
            "alive": FILES,
            "down": FILES,
        }
