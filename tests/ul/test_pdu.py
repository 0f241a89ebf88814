"""PDUs and their items: hand-made bytes, round trips, lenience, and what is refused."""

import dataclasses

import pytest
from hypothesis import given

from router.ul import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AbortReason,
    AReleaseRP,
    AReleaseRQ,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    LocalProtocolError,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    RemoteProtocolError,
    RoleSelection,
    UserIdentityRQ,
    UserInformation,
    decode_pdu,
    describe_abort,
    describe_rejection,
    encode_pdu,
)
from router.ul.pdu import PDU, PDV

from . import strategies
from .support import request


def lay(*parts: str | bytes) -> bytes:
    """Bytes from hexadecimal text and literal bytes."""
    return b"".join(bytes.fromhex(part) if isinstance(part, str) else part for part in parts)


def associate(
    kind: int, *items: bytes, called: bytes = b"ROUTER", calling: bytes = b"CT1"
) -> bytes:
    """A-ASSOCIATE-RQ or -AC laid out by hand, as PS3.8 tables 9-11 and 9-17 have it."""
    value = lay("0001 0000", called.ljust(16), calling.ljust(16), bytes(32), *items)
    return lay(bytes((kind, 0)), len(value).to_bytes(4, "big"), value)


def item(kind: int, *parts: str | bytes) -> bytes:
    value = lay(*parts)
    return lay(bytes((kind, 0)), len(value).to_bytes(2, "big"), value)


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
EVERYTHING = item(
    0x50,
    item(0x51, "00004000"),
    item(0x52, b"1.2.3.4"),
    item(0x53, "0005 0002"),
    item(0x54, "0003", b"1.2", "01 00"),
    item(0x54, "0003", b"1.3", "00 01"),
    item(0x55, b"ROUTER_1"),
    item(0x56, "0003", b"1.2", "01 02 03"),
    item(0x57, "0003", b"1.2", "0003", b"4.2", "000A", "0003", b"1.5", "0003", b"1.6"),
    item(0x58, "02 01", "0004", b"user", "0006", b"secret"),
    item(0x59, "0005", b"token"),
    item(0x7F, b"later"),
)
INFORMATION = UserInformation(
    maximum_length=16384,
    implementation_class_uid="1.2.3.4",
    implementation_version_name="ROUTER_1",
    asynchronous_operations=(5, 2),
    role_selections=(RoleSelection("1.2", True, False), RoleSelection("1.3", False, True)),
    extended=(ExtendedNegotiation("1.2", b"\x01\x02\x03"),),
    common_extended=(CommonExtendedNegotiation("1.2", "4.2", ("1.5", "1.6")),),
    user_identity=UserIdentityRQ(2, True, b"user", b"secret"),
    user_identity_response=b"token",
    unknown=((0x7F, b"later"),),
)
VECTORS: list[tuple[bytes, PDU]] = [
    (
        associate(
            1,
            APPLICATION,
            item(0x20, "01 000000", item(0x30, b"1.2"), item(0x40, b"1.4"), item(0x40, b"1.5")),
            item(0x20, "FF 000000", item(0x30, b"1.3"), item(0x40, b"1.4")),
            EVERYTHING,
        ),
        AAssociateRQ(
            "ROUTER",
            "CT1",
            (
                PresentationContextRQ(1, "1.2", ("1.4", "1.5")),
                PresentationContextRQ(255, "1.3", ("1.4",)),
            ),
            INFORMATION,
        ),
    ),
    (
        associate(
            2,
            APPLICATION,
            item(0x21, "01 00 00 00", item(0x40, b"1.4")),
            item(0x21, "FF 00 03 00"),
            EVERYTHING,
        ),
        AAssociateAC(
            "ROUTER",
            "CT1",
            (PresentationContextAC(1, 0, "1.4"), PresentationContextAC(255, 3, "")),
            INFORMATION,
        ),
    ),
    (lay("03 00 00000004 00 01 02 02"), AAssociateRJ(1, 2, 2)),
    (
        lay("04 00 00000010", "00000006 01 03", b"abcd", "00000002 03 00"),
        PDataTF((PDV(1, 3, b"abcd"), PDV(3, 0, b""))),
    ),
    (lay("05 00 00000004 00000000"), AReleaseRQ()),
    (lay("06 00 00000004 00000000"), AReleaseRP()),
    (lay("07 00 00000004 0000 02 06"), AAbort(2, 6)),
]


@pytest.mark.parametrize(("data", "pdu"), VECTORS, ids=lambda v: type(v).__name__)
def test_bytes_as_the_standard_lays_them_out(data: bytes, pdu: PDU) -> None:
    assert encode_pdu(pdu) == data
    assert decode_pdu(data) == pdu
    assert decode_pdu(memoryview(data)) == pdu


@given(strategies.pdus)
def test_round_trip(pdu: PDU) -> None:
    assert decode_pdu(encode_pdu(pdu)) == pdu


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"ROUTER          ", "ROUTER"),
        (b"ROUTER\0\0\0\0\0\0\0\0\0\0", "ROUTER"),
        (b"  ROUTER\r\n      ", "ROUTER"),
        (b"CT1\0left behind\0", "CT1"),
        (b"\0\0CT1           ", "CT1"),
        (b"CT 1            ", "CT 1"),
        (b" " * 16, ""),
        (bytes(16), ""),
        (b"\x1b[31mRED        ", "[31mRED"),
        (b"M\xfcnchen         ", "München"),
    ],
)
def test_ae_titles_are_read_leniently_and_kept_raw(raw: bytes, title: str) -> None:
    raw = raw.ljust(16)
    for kind in (1, 2):
        pdu = decode_pdu(associate(kind, APPLICATION, called=raw, calling=raw))
        assert isinstance(pdu, AAssociateRQ | AAssociateAC)
        assert (pdu.called_ae_title, pdu.calling_ae_title) == (title, title)
        assert (pdu.raw_called_ae_title, pdu.raw_calling_ae_title) == (raw, raw)
        assert decode_pdu(encode_pdu(pdu)) == pdu


@pytest.mark.parametrize("padded", [b"1.2\0", b"1.2 ", b"1.2\0\0 ", b" 1.2"])
def test_uids_lose_their_padding(padded: bytes) -> None:
    context = item(0x20, "01 000000", item(0x30, padded), item(0x40, padded))
    user = item(
        0x50, item(0x52, padded), item(0x54, len(padded).to_bytes(2, "big"), padded, "0100")
    )
    pdu = decode_pdu(associate(1, item(0x10, padded), context, user))
    assert isinstance(pdu, AAssociateRQ)
    assert pdu.application_context == "1.2"
    assert pdu.presentation_contexts == (PresentationContextRQ(1, "1.2", ("1.2",)),)
    assert pdu.user_information.implementation_class_uid == "1.2"
    assert pdu.user_information.role_selections == (RoleSelection("1.2", True, False),)


def test_a_uid_that_is_not_ascii_is_read_and_can_be_sent_back() -> None:
    context = item(0x20, "01 000000", item(0x30, b"1.2"), item(0x40, b"1.\xff\xfe"))
    pdu = decode_pdu(associate(1, APPLICATION, context))
    assert isinstance(pdu, AAssociateRQ)
    (syntax,) = pdu.presentation_contexts[0].transfer_syntaxes
    answer = AAssociateAC("A", "B", (PresentationContextAC(1, 0, syntax),), UserInformation())
    assert b"1.\xff\xfe" in encode_pdu(answer)


def test_of_several_items_of_a_kind_the_last_counts() -> None:
    user = item(0x50, item(0x51, "00000001"), item(0x51, "00000002"), item(0x55, b"A"))
    again = item(0x50, item(0x51, "00000003"), item(0x55, b"B"), item(0x55, b"C"))
    pdu = decode_pdu(associate(1, item(0x10, b"9"), APPLICATION, user, again))
    assert isinstance(pdu, AAssociateRQ)
    assert pdu.application_context == "1.2.840.10008.3.1.1.1"
    assert pdu.user_information == UserInformation(3, implementation_version_name="C")


def test_missing_items_have_their_defaults() -> None:
    pdu = decode_pdu(associate(1, item(0x20, "01 000000"), item(0x50, item(0x52, b"1.2"))))
    assert isinstance(pdu, AAssociateRQ)
    assert pdu.application_context == ""
    assert pdu.presentation_contexts == (PresentationContextRQ(1, "", ()),)
    assert pdu.user_information.maximum_length == 0


def test_items_of_later_versions_are_ignored() -> None:
    context = item(0x20, "01 000000", item(0x66, b"?"), item(0x30, b"1.2"), item(0x40, b"1.4"))
    pdu = decode_pdu(associate(1, item(0x99, b"??"), APPLICATION, context))
    assert isinstance(pdu, AAssociateRQ)
    assert pdu.presentation_contexts == (PresentationContextRQ(1, "1.2", ("1.4",)),)


REFUSED: dict[str, tuple[bytes, AbortReason, str]] = {
    "nothing": (b"", AbortReason.INVALID_PDU_PARAMETER, "0 bytes"),
    "half a header": (b"\x01\x00\x00", AbortReason.INVALID_PDU_PARAMETER, "3 bytes"),
    "unknown type": (lay("08 00 00000000"), AbortReason.UNRECOGNIZED_PDU, "08H"),
    "length too short": (
        lay("05 00 00000003 00000000"),
        AbortReason.INVALID_PDU_PARAMETER,
        "says 3 bytes, has 4",
    ),
    "length too long": (
        lay("05 00 FFFFFFFF 00000000"),
        AbortReason.INVALID_PDU_PARAMETER,
        "4294967295",
    ),
    "release of five bytes": (
        lay("06 00 00000005 0000000000"),
        AbortReason.INVALID_PDU_PARAMETER,
        "A-RELEASE-RP",
    ),
    "abort without bytes": (lay("07 00 00000000"), AbortReason.INVALID_PDU_PARAMETER, "A-ABORT"),
    "no fixed fields": (
        lay("01 00 00000004 00010000"),
        AbortReason.INVALID_PDU_PARAMETER,
        "fixed fields",
    ),
    "stray bytes": (
        associate(1, APPLICATION, b"\x20\x00"),
        AbortReason.INVALID_PDU_PARAMETER,
        "stray bytes at byte 99",
    ),
    "item past the end": (
        associate(1, lay("10 00 FFFF"), b"1.2"),
        AbortReason.INVALID_PDU_PARAMETER,
        "item 10H at byte 74 is 65535 bytes long, where 3 are left",
    ),
    "sub-item past its item": (
        associate(1, item(0x20, "01 000000", "30 00 0009", b"1.2"), APPLICATION),
        AbortReason.INVALID_PDU_PARAMETER,
        "presentation context 1: item 30H at byte 82",
    ),
    "even context ID": (
        associate(1, item(0x20, "02 000000")),
        AbortReason.INVALID_PDU_PARAMETER,
        "ID 2 at byte 78",
    ),
    "the same context ID twice": (
        associate(1, item(0x20, "01 000000"), item(0x20, "01 000000")),
        AbortReason.INVALID_PDU_PARAMETER,
        "same ID",
    ),
    "empty context": (associate(2, item(0x21)), AbortReason.INVALID_PDU_PARAMETER, "field of 1"),
    "maximum length of 3 bytes": (
        associate(1, item(0x50, item(0x51, "000001"))),
        AbortReason.INVALID_PDU_PARAMETER,
        "item 51H: a field of 4 bytes",
    ),
    "maximum length of 5 bytes": (
        associate(1, item(0x50, item(0x51, "0000000001"))),
        AbortReason.INVALID_PDU_PARAMETER,
        "1 bytes too many",
    ),
    "role with a UID past its end": (
        associate(1, item(0x50, item(0x54, "00FF", b"1.2", "0101"))),
        AbortReason.INVALID_PDU_PARAMETER,
        "item 54H: a field of 255",
    ),
    "related class past its list": (
        associate(1, item(0x50, item(0x57, "0001", b"1", "0001", b"2", "0003 0009 33"))),
        AbortReason.INVALID_PDU_PARAMETER,
        "related",
    ),
    "identity without a second field": (
        associate(1, item(0x50, item(0x58, "01 00 0001", b"u"))),
        AbortReason.INVALID_PDU_PARAMETER,
        "item 58H",
    ),
    "P-DATA-TF without values": (lay("04 00 00000000"), AbortReason.INVALID_PDU_PARAMETER, "witho"),
    "value of length 1": (
        lay("04 00 00000006 00000001 01 00"),
        AbortReason.INVALID_PDU_PARAMETER,
        "length 1",
    ),
    "value past the end": (
        lay("04 00 00000007 00000004 01 00 FF"),
        AbortReason.INVALID_PDU_PARAMETER,
        "7 bytes left",
    ),
    "value with a stray byte": (
        lay("04 00 00000008 00000003 01 00 FF 00"),
        AbortReason.INVALID_PDU_PARAMETER,
        "stray",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason_and_place(name: str) -> None:
    data, reason, words = REFUSED[name]
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        decode_pdu(data)
    assert caught.value.reason is reason
    assert caught.value.source == 2


@pytest.mark.parametrize("count", [129, 200])
def test_more_contexts_than_there_are_ids(count: int) -> None:
    contexts = [item(0x20, bytes((1, 0, 0, 0))) for _ in range(count)]
    with pytest.raises(RemoteProtocolError, match=f"{count} presentation contexts"):
        decode_pdu(associate(1, *contexts))


def test_all_128_contexts_with_many_syntaxes_are_read() -> None:
    syntaxes = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(40))
    contexts = tuple(PresentationContextRQ(2 * n + 1, f"1.2.{n}", syntaxes) for n in range(128))
    pdu = request(presentation_contexts=contexts)
    assert decode_pdu(encode_pdu(pdu)) == pdu


@pytest.mark.parametrize(
    "change",
    [
        {"called_ae_title": "SEVENTEEN LETTERS"},
        {"calling_ae_title": "ΑΒΓ"},
        {"presentation_contexts": (PresentationContextRQ(2, "1.2", ("1.2",)),)},
        {"presentation_contexts": (PresentationContextRQ(257, "1.2", ("1.2",)),)},
        {"presentation_contexts": (PresentationContextRQ(1, "1.2", ("1.2",)),) * 2},
        {"presentation_contexts": (PresentationContextRQ(1, "1.2", ("1.2",)),) * 129},
        {"presentation_contexts": (PresentationContextRQ(1, "1" * 66000, ("1.2",)),)},
        {"user_information": UserInformation(2**32)},
        {"user_information": UserInformation(-1)},
        {"user_information": UserInformation(asynchronous_operations=(65536, 1))},
        {"user_information": UserInformation(implementation_version_name="17 characters :-)")},
        {"user_information": UserInformation(user_identity=UserIdentityRQ(256, False, b""))},
        {"protocol_version": 65536},
    ],
    ids=str,
)
def test_what_cannot_be_encoded_is_our_mistake(change: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_pdu(request(**change))


def test_credentials_do_not_reach_a_log_through_repr() -> None:
    assert "secret" not in repr(dataclasses.replace(request(), user_information=INFORMATION))


def test_codes_in_words() -> None:
    assert describe_rejection(1, 1, 7) == (
        "rejected permanently by the peer's application: called AE title not recognised "
        "(result 1, source 1, reason 7)"
    )
    assert "local limit exceeded" in describe_rejection(2, 3, 2)
    assert "protocol version not supported" in describe_rejection(1, 2, 2)
    assert describe_rejection(9, 9, 9).endswith("(result 9, source 9, reason 9)")
    assert describe_abort(2, 6) == (
        "aborted by the peer's upper layer: invalid PDU parameter value (source 2, reason 6)"
    )
    assert "no reason given" in describe_abort(0, 6)
    assert describe_abort(1, 3).endswith("(source 1, reason 3)")
    assert AAssociateRJ(2, 3, 2).transient
    assert not AAssociateRJ(1, 3, 2).transient
