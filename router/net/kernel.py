"""What the kernel knows of a connection and a transport does not tell.

Owns one system call.  Must not know protocols.  tcp(7), SIOCOUTQ.
"""

import asyncio
import fcntl
import struct
import termios


def unacknowledged(transport: asyncio.BaseTransport | None) -> int:
    """Bytes that the kernel took from us and the peer's has not acknowledged; 0 if unknown."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # the connection is gone
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count
