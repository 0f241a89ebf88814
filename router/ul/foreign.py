"""Recognises other protocols on a DICOM port, so that the log names the mistake.

Owns the first bytes of the protocols that are met there in practice; read as a PDU header they
would only be an unknown PDU type with a huge length.  Must not know connections.
"""

_PLAIN = "on a port that speaks plain DICOM"

_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (
        b"\x16\x03",
        f"these are TLS bytes {_PLAIN}: let the peer connect without TLS, or to the TLS port",
    ),
    (b"\x15\x03", f"this is a TLS alert {_PLAIN}: one side expects TLS and the other does not"),
    (b"SSH-", "these are SSH bytes: check the port number, one side is a secure shell"),
    (
        b"HTTP/",
        "this is an HTTP response: the peer is a web server, check the port number",
    ),
    (
        b"PRI *",
        f"these are HTTP/2 bytes {_PLAIN}: point web clients and health checks to the HTTP port",
    ),
    (
        b"PROXY ",
        "this is a PROXY protocol header: switch it off in the load balancer",
    ),
    (
        b"\r\n\r\n\x00\r",
        "this is a PROXY protocol header (version 2): switch it off in the load balancer",
    ),
    (b"\x0bMSH", "this is an HL7 message: check the port number, the sender speaks MLLP"),
)

_HTTP_METHODS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC")


def describe_foreign(first: bytes) -> str:
    """What protocol the first six bytes of a connection belong to and what to do, or ""."""
    for prefix, text in _PREFIXES:
        if first.startswith(prefix):
            return text
    if first.startswith(_HTTP_METHODS):
        return (
            f"this is an HTTP request {_PLAIN}: "
            "point web clients and health checks to the HTTP port"
        )
    return ""
