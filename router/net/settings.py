"""Settings of local AEs, remotes and timers; the one place of their defaults."""

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from router.dicom.uids import parse_transfer_syntax
from router.net.commitment import CommitmentSetting
from router.net.limits import BandwidthByHour, Priority, Rate
from router.net.offer import Offer, check_sop_class
from router.net.presets import check_preset, with_preset
from router.net.retry import Retry as Retry
from router.units import Bytes, Seconds


def _ae_title(value: str) -> str:
    """PS3.5 §6.2: AE is at most 16 characters, no backslash and no control characters."""
    title = value.strip(" ")
    if not title or len(title) > 16:
        raise ValueError(f"an AE title has 1 to 16 characters, {value!r} has {len(title)}")
    if any(not 0x20 <= ord(c) < 0x7F or c == "\\" for c in title):
        raise ValueError(f"an AE title has no backslash and only printable ASCII, not {value!r}")
    return title


AETitle = Annotated[str, AfterValidator(_ae_title)]


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``0.0.0.0:104`` or ``[::1]:104``.  Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"expected address:port such as 0.0.0.0:11112 or [::]:11112, not {text!r}")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        if host != "localhost":
            raise ValueError(f"expected an IP address to listen on, not {host!r}") from None
    return (host[1:-1] if bracketed else host), int(port)


def _listen(value: str) -> str:
    parse_address(value)
    return value


TransferSyntax = Annotated[str, AfterValidator(parse_transfer_syntax)]
SOPClass = Annotated[str, AfterValidator(check_sop_class)]


class LocalAE(BaseModel):
    """One item of ``local:``, an AE that this gateway answers as."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle = Field(description="The AE title that peers call.")
    listen: Annotated[str, AfterValidator(_listen)] = Field(
        description="Address and port: 0.0.0.0:11112, [::]:11112; several AEs may share one."
    )
    accept: tuple[str, ...] | Literal["any"] = Field(
        description="Who may call: names of remotes, globs over calling AE titles, networks "
        "in CIDR form; `any` opens it to all.",
    )
    transfer_syntaxes: tuple[TransferSyntax, ...] | Literal["proposed"] = Field(
        default="proposed",
        description="Order of preference among the syntaxes of a presentation context: "
        "`proposed` takes the proposer's first, a list takes its first that was proposed; "
        "what is not listed comes after, in the proposer's order.",
    )
    max_associations: int = Field(
        default=250,
        ge=1,
        description="At once, for this AE; network.reserve applies to them as well.",
    )


class Remote(BaseModel):
    """One entry of ``remotes:``, a system that we receive from or send to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle = Field(description="Its AE title, as caller and as called.")
    host: str | None = Field(
        default=None, description="Host name or address; needed to send to it."
    )
    port: int = Field(default=104, ge=1, le=65535, description="Where it listens.")
    addresses: tuple[str, ...] = Field(
        default=(),
        description="Addresses or networks that it calls from; when given, the AE title alone "
        "is not enough.",
    )
    calling_ae: AETitle | None = Field(
        default=None, description="AE title to present; that of the first local AE when absent."
    )
    associations: int = Field(default=2, ge=1, le=64, description="At once, when sending.")
    max_associations: int | None = Field(
        default=None, ge=1, description="At once, when it calls us; no cap of its own when absent."
    )
    max_pdu: Bytes = Field(
        default=2**20,
        ge=4096,
        le=16 * 2**20,
        description="Largest P-DATA-TF sent to it, whatever it allows.",
    )
    asynchronous_operations: int = Field(
        default=8,
        ge=1,
        le=64,
        description="Asynchronous operations window to propose, used as far as the peer grants "
        "it; 1 leaves the item out, for peers that drop the connection at the sight of it.",
    )
    linger: Seconds = Field(
        default=2.0, description="How long an idle association is kept for the next instance."
    )
    connect_timeout: Seconds = Field(
        default=10.0, gt=0, description="Time for the TCP connection, name look-up included."
    )
    negotiation_timeout: Seconds = Field(
        default=30.0, gt=0, description="Time for the answer to an association or release request."
    )
    dimse_timeout: Seconds = Field(
        default=60.0, gt=0, description="Longest silence of the peer while we wait for it."
    )
    close_delay: Seconds = Field(
        default=0.0,
        le=60,
        description="How long the connection is left open after the peer has answered a release, "
        "for it to close first: some report an error otherwise.",
    )
    association_per: Literal["study", "instance"] | None = Field(
        default=None,
        description="`study`: an association carries instances of one study and no other, and a "
        "study is on one association at a time. `instance`: each instance has its own. Without "
        "it an association carries whatever waits.",
    )
    transfer_syntaxes: Annotated[tuple[TransferSyntax, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="The only transfer syntaxes that are proposed when sending. An instance that "
        "is stored in another one becomes a dead letter at once. All when absent.",
    )
    never_send: tuple[SOPClass, ...] = Field(
        default=(),
        description="SOP classes that it is never sent, whatever the rules say: UIDs, keywords "
        "such as CTImageStorage, or globs. Their instances become dead letters at once.",
    )
    propose_role: Literal["default", "scu"] = Field(
        default="default",
        description="`scu` states our role for every storage class that is proposed (SCP/SCU role "
        "selection), for peers that accept no storage without.",
    )
    schedule: str | None = Field(
        default=None,
        description="A name of `schedules`: it is sent to only while that is open. What waits "
        "stays in its queue; an association is not even tried.",
    )
    closing: Literal["finish", "stop"] = Field(
        default="finish",
        description="What becomes of an instance that is being sent as the schedule shuts: "
        "`finish` sends it to its end, `stop` cuts it off, to be sent again from its beginning "
        "when the schedule opens; that counts as no attempt.",
    )
    urgent: Priority | None = Field(
        default=None,
        description="The least priority, as in `send: {priority: …}` of a rule, that is sent while "
        "the schedule is shut as well; none when absent.",
    )
    bandwidth: BandwidthByHour = Field(
        default_factory=dict,
        description="Bits or bytes per second over all associations to it: `20Mbit/s`, `2MB/s`. By "
        'the hour: `{"mon-fri 07:00-18:00": 20Mbit/s, else: unlimited}`, whose keys are windows '
        "or names of `schedules`; the first that is open counts. No limit when absent.",
    )
    rate: Rate | None = Field(
        default=None,
        description="Instances per second over all associations to it: `5`, `30/min`, `1000/h`. No "
        "limit when absent.",
    )
    preset: Annotated[str, AfterValidator(check_preset)] | None = Field(
        default=None,
        description="Settings that suit a known kind of system, see `dcmrouter remotes presets`; "
        "what is set here besides wins.",
    )
    retry: Retry = Field(default_factory=Retry)
    commitment: CommitmentSetting = Field(
        default=None,
        description="Whether an instance counts as delivered only when the remote has said that it "
        "keeps it: `true`, or how.",
    )

    @property
    def offer(self) -> Offer:
        """What may be proposed to it when sending."""
        return Offer(self.never_send, self.transfer_syntaxes)

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, settings: object) -> object:
        return with_preset(settings)


class NetworkSettings(BaseModel):
    """``network:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_associations: int = Field(default=500, ge=1, description="Incoming, in all.")
    max_per_address: int | None = Field(
        default=None,
        ge=1,
        description="Incoming, from one address, of callers that are no remote by name; two fifths "
        "of max_associations when absent, but 32 at least.",
    )
    reserve: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of max_associations, those of each AE too, that only remotes by name "
        "may use: others never take the last places.",
    )
    max_waiting: int = Field(
        default=512,
        ge=8,
        description="Connections without an association, in all: they have not asked for one "
        "yet, or were refused and are not closed. Above it the one that waits longest is dropped.",
    )
    max_waiting_per_address: int = Field(default=256, ge=4, description="The same, of one address.")
    max_pdu: Bytes = Field(
        default=256 * 2**10,
        ge=4096,
        le=16 * 2**20,
        description="Maximum length announced for P-DATA-TF PDUs sent to us.",
    )
    artim_timeout: Seconds = Field(
        default=30.0,
        gt=0,
        description="ARTIM timer of PS3.8: A-ASSOCIATE-RQ after connect, and closing.",
    )
    idle_timeout: Seconds = Field(
        default=300.0, gt=0, description="Established association without a message under way."
    )
    dimse_timeout: Seconds = Field(
        default=60.0, gt=0, description="Longest silence of a peer in the middle of a message."
    )
    min_rate: Bytes = Field(
        default=256,
        description="Bytes per second that a peer sends at least in the middle of a message, over "
        "dimse_timeout, while we listen; 0 switches it off.",
    )
    bandwidth_out: BandwidthByHour = Field(
        default_factory=dict,
        description="Bandwidth of all that is sent, in the form of `bandwidth` of a remote; every "
        "destination has its turn. No limit when absent.",
    )
    max_associations_out: int | None = Field(
        default=None,
        ge=1,
        description="Associations for sending, in all. One is kept for each remote that has a "
        "host, so that none can keep another from sending: it cannot be less than there are of "
        "these. No limit when absent.",
    )
    stop_timeout: Seconds = Field(
        default=20.0, description="At SIGTERM: time for open associations to finish, then abort."
    )

    @property
    def address_limit(self) -> int:
        """Associations from one address of callers that are no remote by name."""
        return self.max_per_address or max(32, self.max_associations * 2 // 5)

    def open_to_all(self, limit: int) -> int:
        """How many of `limit` associations callers that are no remote by name may have."""
        return limit - int(limit * self.reserve)
