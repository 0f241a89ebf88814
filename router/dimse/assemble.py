"""Putting messages together again from the PDVs that they were cut into.

Owns the order in which fragments may come and the bound on a command set.  Must not know PDUs,
nor what becomes of a data set: its pieces are handed on as they come, never collected.
PS3.7 §6.3.1, PS3.8 Annex E.
"""

from collections.abc import Callable

from router.dimse.command import Command, decode_command
from router.ul.errors import AbortSource, RemoteProtocolError

COMMAND_LIMIT = 64 * 1024
"""Bytes of a command set; real ones have a few hundred."""

_NONE = -1
_COMMAND = 0x01
_LAST = 0x02


class Assembler:
    """One direction of an association, message after message.

    ``fragment`` fits the ``on_fragment`` of `router.ul.connection.Connection`.  ``on_command`` gets
    the presentation context's id and the command when the command set is complete.  When it
    announces a data set, ``on_data`` follows for each piece of it, which is valid until the call
    returns, and ``on_end`` after the last; otherwise the message ended with ``on_command``.
    What the callbacks raise passes through; the assembler is then of no further use.  A callback
    that only aborts the association must expect the ``on_end`` of the piece it was called for.
    """

    __slots__ = (
        "_buffer",
        "_command_context",
        "_command_limit",
        "_data_context",
        "_on_command",
        "_on_data",
        "_on_end",
    )

    def __init__(
        self,
        on_command: Callable[[int, Command], None],
        on_data: Callable[[memoryview], None],
        on_end: Callable[[], None],
        *,
        command_limit: int = COMMAND_LIMIT,
    ) -> None:
        self._on_command = on_command
        self._on_data = on_data
        self._on_end = on_end
        self._command_limit = command_limit
        self._buffer = bytearray()
        # Context of the command set or data set that has begun and not ended.  An id comes as it
        # was on the wire, so none of 0 to 255 can stand for "none".
        self._command_context = _NONE
        self._data_context = _NONE

    @property
    def under_way(self) -> bool:
        """Whether a message has begun and not ended: the peer owes us the rest of it."""
        return self._command_context != _NONE or self._data_context != _NONE

    def fragment(self, context_id: int, control: int, piece: memoryview, end_of_pdv: bool) -> None:
        """A piece of a PDV's value, of any size, with the PDV's message control header.

        Bits of ``control`` other than the lowest two are not significant.  Raises
        RemoteProtocolError for fragments out of order, a command set over the limit, and what
        `decode_command` refuses.
        """
        if control & _COMMAND:
            self._command_fragment(context_id, control, piece, end_of_pdv)
            return
        if context_id != self._data_context:
            raise self._misplaced_data(context_id)
        if piece:
            self._on_data(piece)
        if end_of_pdv and control & _LAST:
            self._data_context = _NONE
            self._on_end()

    def _command_fragment(
        self, context_id: int, control: int, piece: memoryview, end_of_pdv: bool
    ) -> None:
        if self._data_context != _NONE:
            raise _broken(
                f"command fragment on presentation context {context_id} before the end of the "
                f"data set on {self._data_context}"
            )
        if self._command_context not in (_NONE, context_id):
            raise _broken(
                f"command fragment on presentation context {context_id} inside a command set on "
                f"{self._command_context}"
            )
        buffer = self._buffer
        if len(buffer) + len(piece) > self._command_limit:
            raise _broken(f"command set longer than {self._command_limit} bytes")
        if not (end_of_pdv and control & _LAST):
            self._command_context = context_id
            buffer += piece
            return
        if buffer:
            buffer += piece
            command = decode_command(buffer)
            buffer.clear()
        else:
            command = decode_command(piece)
        self._command_context = _NONE
        if command.has_data_set:
            self._data_context = context_id
        self._on_command(context_id, command)

    def _misplaced_data(self, context_id: int) -> RemoteProtocolError:
        if self._data_context != _NONE:
            return _broken(
                f"data set fragment on presentation context {context_id} inside a data set on "
                f"{self._data_context}"
            )
        if self._command_context != _NONE:
            return _broken(
                f"data set fragment on presentation context {context_id} before the end of the "
                f"command set on {self._command_context}"
            )
        return _broken(
            f"data set fragment on presentation context {context_id} without a command that "
            "announces one"
        )


def _broken(message: str) -> RemoteProtocolError:
    # As in `command`: DIMSE is the user of the upper layer, so it is the user that aborts.
    return RemoteProtocolError(message, source=AbortSource.SERVICE_USER)
