"""Who is let in: names, globs, networks and limits, as tables."""

import pytest

from router.net.admission import Admission, Admitted, Load, Refusal, parse_network
from router.net.settings import LocalAE, NetworkSettings, Remote
from router.ul import AAssociateRJ, UserInformation
from tests.ul.support import request

LISTEN = "0.0.0.0:11112"
REMOTES = {
    "ct-room-1": Remote(ae_title="CT1"),
    "ct-by-address": Remote(ae_title="CT1", addresses=("10.1.1.0/24", "2001:db8::/32")),
    "pacs": Remote(ae_title="PACS", addresses=("10.0.0.5",), max_associations=2),
}
EMPTY = Load(0, {}, {})
CALLING = AAssociateRJ(1, 1, 3)
CALLED = AAssociateRJ(1, 1, 7)
LIMIT = AAssociateRJ(2, 3, 2)


def admission(*accept: str, **local: object) -> Admission:
    ae = LocalAE(ae_title="ROUTER", listen=LISTEN, accept=accept or "any", **local)  # type: ignore[arg-type]
    other = LocalAE(ae_title="OTHER", listen="0.0.0.0:104", accept="any")
    return Admission([ae, other], REMOTES, NetworkSettings(max_associations=10))


def decide(
    subject: Admission,
    calling: str = "CT1",
    source: str = "192.0.2.1",
    called: str = "ROUTER",
    load: Load = EMPTY,
    maximum_length: int = 16384,
) -> Admitted | Refusal:
    rq = request(
        called_ae_title=called,
        calling_ae_title=calling,
        user_information=UserInformation(maximum_length),
    )
    return subject.decide(LISTEN, rq, source, load)


@pytest.mark.parametrize(
    ("accept", "calling", "source", "let_in"),
    [
        ((), "NOBODY", "192.0.2.1", True),
        ((), "", "192.0.2.1", True),
        (("ct-room-1",), "CT1", "192.0.2.1", True),
        (("ct-room-1",), "CT2", "192.0.2.1", False),
        (("ct-room-1",), "ct1", "192.0.2.1", False),
        (("ct-room-1",), "ct-room-1", "192.0.2.1", False),
        (("ct-by-address",), "CT1", "192.0.2.1", False),
        (("ct-by-address",), "CT1", "10.1.1.9", True),
        (("ct-by-address",), "CT1", "2001:db8::7", True),
        (("ct-by-address",), "CT9", "10.1.1.9", False),
        (("pacs",), "PACS", "10.0.0.5", True),
        (("pacs",), "PACS", "10.0.0.6", False),
        (("MR*",), "MR7", "192.0.2.1", True),
        (("MR*",), "MR", "192.0.2.1", True),
        (("MR*",), "XMR", "192.0.2.1", False),
        (("MR?",), "MR77", "192.0.2.1", False),
        (("MR[12]",), "MR2", "192.0.2.1", True),
        (("MR[12]",), "MR3", "192.0.2.1", False),
        (("MR.",), "MRX", "192.0.2.1", False),
        (("10.1.0.0/16",), "ANY", "10.1.200.3", True),
        (("10.1.0.0/16",), "ANY", "10.2.0.1", False),
        (("10.1.2.3/16",), "ANY", "10.1.200.3", True),
        (("192.0.2.1",), "ANY", "192.0.2.1", True),
        (("192.0.2.1",), "ANY", "192.0.2.2", False),
        (("2001:db8::/32",), "ANY", "2001:db8:1::1", True),
        (("2001:db8::/32",), "ANY", "2001:db9::1", False),
        (("2001:db8::/32",), "ANY", "32.1.13.184", False),
        (("0.0.0.0/0",), "ANY", "2001:db8::1", False),
        (("10.1.0.0/16",), "ANY", "", False),
        (("10.1.0.0/16",), "ANY", "not an address", False),
        (("nobody", "MR*", "10.1.0.0/16"), "MR7", "192.0.2.1", True),
        (("nobody", "MR*", "10.1.0.0/16"), "CT7", "10.1.0.1", True),
        (("nobody", "MR*", "10.1.0.0/16"), "CT7", "10.9.0.1", False),
    ],
)
def test_accept(accept: tuple[str, ...], calling: str, source: str, let_in: bool) -> None:
    verdict = decide(admission(*accept), calling, source)
    assert isinstance(verdict, Admitted) is let_in
    if isinstance(verdict, Refusal):
        assert (verdict.rejection, verdict.kind) == (CALLING, "calling_ae")
        assert calling in verdict.text
        assert source in verdict.text


@pytest.mark.parametrize(
    ("calling", "source", "names"),
    [
        ("CT1", "10.1.1.3", ["ct-by-address", "ct-room-1"]),
        ("CT1", "192.0.2.1", ["ct-room-1"]),
        ("PACS", "10.0.0.5", ["pacs"]),
        ("PACS", "10.0.0.6", []),
        ("CT9", "10.1.1.3", []),
    ],
)
def test_a_remote_known_by_address_goes_before_one_known_by_title(
    calling: str, source: str, names: list[str]
) -> None:
    subject = admission()
    assert subject.identify(calling, source) == names
    verdict = decide(subject, calling, source)
    assert isinstance(verdict, Admitted)
    assert verdict.remote == (names[0] if names else "")
    assert verdict.local.ae_title == "ROUTER"


@pytest.mark.parametrize("called", ["OTHER", "router", "", "NOBODY"])
def test_a_called_title_counts_at_its_own_address_only(called: str) -> None:
    verdict = decide(admission(), called=called)
    assert isinstance(verdict, Refusal)
    assert (verdict.rejection, verdict.kind) == (CALLED, "called_ae")
    assert repr(called) in verdict.text
    assert "(ROUTER)" in verdict.text


@pytest.mark.parametrize(
    ("load", "names"),
    [
        (Load(9, {}, {}), ""),
        (Load(10, {}, {}), "network.max_associations"),
        (Load(9, {"ROUTER": 2}, {}), ""),
        (Load(9, {"ROUTER": 3}, {}), "ROUTER"),
        (Load(9, {"OTHER": 3}, {}), ""),
        (Load(9, {}, {"pacs": 1}), ""),
        (Load(9, {}, {"pacs": 2}), "pacs"),
        (Load(9, {}, {"ct-room-1": 9}), ""),
    ],
)
def test_limits_in_all_of_a_local_ae_and_of_a_remote(load: Load, names: str) -> None:
    verdict = decide(admission(max_associations=3), "PACS", "10.0.0.5", load=load)
    if not names:
        assert isinstance(verdict, Admitted)
        return
    assert isinstance(verdict, Refusal)
    assert (verdict.rejection, verdict.kind) == (LIMIT, "limit")
    assert names in verdict.text


def test_a_stranger_hears_of_no_limits() -> None:
    verdict = decide(admission("pacs"), load=Load(10, {}, {}))
    assert isinstance(verdict, Refusal)
    assert verdict.kind == "calling_ae"


@pytest.mark.parametrize("length", [1, 4, 7])
def test_a_maximum_length_in_which_no_answer_fits_is_refused(length: int) -> None:
    verdict = decide(admission(), maximum_length=length)
    assert isinstance(verdict, Refusal)
    assert (verdict.rejection, verdict.kind) == (AAssociateRJ(1, 1, 1), "maximum_length")
    assert f"{length} bytes" in verdict.text


@pytest.mark.parametrize("length", [0, 8, 16384, 0xFFFFFFFF])
def test_other_maximum_lengths_are_taken(length: int) -> None:
    assert isinstance(decide(admission(), maximum_length=length), Admitted)


def test_networks() -> None:
    assert str(parse_network("10.1.2.3/16")) == "10.1.0.0/16"
    assert str(parse_network("::1")) == "::1/128"
    for text in ("CT1", "MR*", "", "10", "10.1.2", "10.1.2.3/33"):
        assert parse_network(text) is None
