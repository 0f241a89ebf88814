"""The prepared C-STORE-RSP against the table-driven one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.dimse.responder import StoreResponder
from router.ul.errors import LocalProtocolError
from tests.dimse.samples import CT_IMAGE_STORAGE
from tests.dimse.test_fragment import split_pdus

_UIDS = st.text("0123456789.", max_size=64)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.sampled_from([CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.4", "1.2", ""]),
            _UIDS,
            st.sampled_from([0x0000, 0xB000, 0xA700, 0xC000]),
            st.sampled_from(["", "no room: 12 bytes free", "é\n" * 80]),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(8, 200) | st.sampled_from([0, 16384]),
)
def test_writes_what_the_table_writes(
    responses: list[tuple[int, str, str, int, str]], maximum_length: int
) -> None:
    responder = StoreResponder(3, maximum_length)
    for message_id, sop_class, instance, status, comment in responses:
        command = Command(
            0x8001,
            message_id_being_responded_to=message_id,
            status=status,
            affected_sop_class_uid=sop_class,
            affected_sop_instance_uid=instance,
            error_comment=comment,
        )
        expected = encode_message(3, encode_command(command), None, maximum_length)
        assert responder.response(message_id, sop_class, instance, status, comment) == expected


def test_classes_that_a_peer_makes_up_are_not_kept_for_ever() -> None:
    responder = StoreResponder(1, 0)
    for number in range(2000):
        responder.response(1, f"1.2.{number}", "1.2.3")
    assert len(responder._heads) <= 256


def test_a_maximum_length_of_a_few_bytes_is_kept_to() -> None:
    pdus = split_pdus(StoreResponder(1, 10).response(1, CT_IMAGE_STORAGE, "1.2.3"))
    assert all(len(pdv.data) <= 4 for pdu in pdus for pdv in pdu.pdvs)


@pytest.mark.parametrize(
    ("message_id", "sop_class", "instance", "status"),
    [(65536, "1.2", "1.2", 0), (1, "1.2", "é", 0), (1, "é", "1.2", 0), (1, "1.2", "1.2", -1)],
)
def test_values_that_do_not_fit_are_refused(
    message_id: int, sop_class: str, instance: str, status: int
) -> None:
    with pytest.raises(LocalProtocolError):
        StoreResponder(1, 0).response(message_id, sop_class, instance, status)
