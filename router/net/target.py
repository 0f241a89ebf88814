"""Whom to ask for an association.

Owns what a requestor needs to know of its peer.  Must not know how associations are made.
PS3.8 §7.1.1.
"""

from dataclasses import dataclass

from router.net.settings import Remote


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call, as whom, and with how much patience (seconds).

    ``states_role``: our role is put in words for each class that is proposed (PS3.7 §D.3.3.4).
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae: str
    max_pdu: int = 2**20
    asynchronous_operations: int = 1
    connect_timeout: float = 10.0
    negotiation_timeout: float = 30.0
    dimse_timeout: float = 60.0
    close_delay: float = 0.0
    states_role: bool = False

    @classmethod
    def of(cls, name: str, remote: Remote, calling_ae: str) -> "Target":
        """The target that a configured remote is; `calling_ae` where it names none of its own.

        Raises ValueError when the remote has no host.
        """
        if remote.host is None:
            raise ValueError(f"remote {name} has no host")
        return cls(
            name=name,
            ae_title=remote.ae_title,
            host=remote.host,
            port=remote.port,
            calling_ae=remote.calling_ae or calling_ae,
            max_pdu=remote.max_pdu,
            asynchronous_operations=remote.asynchronous_operations,
            connect_timeout=remote.connect_timeout,
            negotiation_timeout=remote.negotiation_timeout,
            dimse_timeout=remote.dimse_timeout,
            close_delay=remote.close_delay,
            states_role=remote.propose_role == "scu",
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"
