"""How much of a peer's text we keep."""

from router.dimse.command import decode_command


def test_an_error_comment_of_kilobytes_went_into_every_reason() -> None:
    comment = b"no room " * 7500
    elements = b"".join(
        element.to_bytes(4, "little") + len(value).to_bytes(4, "little") + value
        for element, value in (
            (0x00020000, b"1.2.840.10008.1.1\0"),
            (0x01000000, b"\x01\x80"),
            (0x01200000, b"\x01\0"),
            (0x08000000, b"\x01\x01"),
            (0x09000000, b"\0\xa7"),
            (0x09020000, comment),
        )
    )
    command = decode_command(
        bytes(4) + b"\x04\0\0\0" + len(elements).to_bytes(4, "little") + elements
    )
    assert command.status == 0xA700
    assert command.error_comment == comment[:64].decode().rstrip()
