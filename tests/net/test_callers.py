"""Which remote a caller is, where several have one AE title."""

from router.net.admission import Admission
from router.net.settings import LocalAE, NetworkSettings, Remote


def admission(**remotes: Remote) -> Admission:
    local = LocalAE(ae_title="ROUTER", listen="0.0.0.0:104", accept="any")
    return Admission([local], remotes, NetworkSettings())


def test_a_call_from_the_host_of_one_was_taken_for_another_of_the_same_title() -> None:
    subject = admission(
        a=Remote(ae_title="CT", host="10.0.0.1"),
        b=Remote(ae_title="CT", host="10.0.0.2"),
        c=Remote(ae_title="CT", host="ct.example"),
        d=Remote(ae_title="CT", host="10.0.0.2", addresses=("10.0.1.0/24",)),
    )
    assert subject.identify("CT", "10.0.0.2") == ["b", "c"]
    assert subject.identify("CT", "10.0.0.1") == ["a", "c"]
    assert subject.identify("CT", "10.0.0.9") == ["c", "a", "b"]
    assert subject.identify("CT", "10.0.1.9") == ["d", "c", "a", "b"]
    assert subject.identify("MR", "10.0.0.1") == []


def test_a_host_of_ipv6_is_known_however_it_is_written() -> None:
    subject = admission(
        a=Remote(ae_title="CT", host="10.0.0.1"), b=Remote(ae_title="CT", host="fd00::0:1")
    )
    assert subject.identify("CT", "fd00::1") == ["b"]
