"""Finds out what a peer accepts, by asking it.

Owns the questions and their order: the harmless ones first, so that a peer that trips over one of
the later ones has answered the others.  Each is an association of its own, one after the other;
nothing is stored.  Must not know configurations or how findings are shown.
PS3.8 §9.3.2 and table 9-18, PS3.7 §D.3.3.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from router.net.connector import association_request, negotiate, reach
from router.net.errors import AssociationError
from router.net.pool import MAX_CONTEXTS
from router.net.requestor import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, Requestor
from router.net.target import Target
from router.ul import PresentationContextRQ, RoleSelection
from router.ul.negotiation import ContextResult

SERVICES = {
    VERIFICATION: "Verification",
    "1.2.840.10008.5.1.4.1.2.1.1": "Query, Patient Root (C-FIND)",
    "1.2.840.10008.5.1.4.1.2.1.2": "Retrieve, Patient Root (C-MOVE)",
    "1.2.840.10008.5.1.4.1.2.1.3": "Retrieve, Patient Root (C-GET)",
    "1.2.840.10008.5.1.4.1.2.2.1": "Query, Study Root (C-FIND)",
    "1.2.840.10008.5.1.4.1.2.2.2": "Retrieve, Study Root (C-MOVE)",
    "1.2.840.10008.5.1.4.1.2.2.3": "Retrieve, Study Root (C-GET)",
    "1.2.840.10008.5.1.4.31": "Modality Worklist (C-FIND)",
    "1.2.840.10008.3.1.2.3.3": "Modality Performed Procedure Step",
    "1.2.840.10008.1.20.1": "Storage Commitment",
}
"""Classes that are no storage and are asked for in Implicit VR Little Endian, with their names."""

_EXPLICIT = "1.2.840.10008.1.2.1"
_CT = "1.2.840.10008.5.1.4.1.1.2"
_COMMITMENT = "1.2.840.10008.1.20.1"
_WINDOW = 8
_FAILURES = 3
"""Associations in a row that may fail before the peer is left alone with the rest."""


@dataclass(slots=True)
class Findings:
    """What a peer answered; times are in seconds.

    ``window``: operations that it lets us have under way, 1 when it grants none, 0 for as many as
    we like, None when asking failed.  ``accepted``: of each storage class that it accepts, the
    transfer syntaxes.  ``roles``: (SCU, SCP) as granted to us by SOP class, None without an answer.
    ``doubtful``: pairs that it refused for no reason of their own.  ``trouble``: what failed, in
    words.
    """

    connected: float = 0.0
    associated: float = 0.0
    round_trips: list[float] = field(default_factory=list)
    echo_status: int | None = None
    maximum_length: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    window: int | None = None
    roles: dict[str, tuple[bool, bool] | None] = field(default_factory=dict)
    services: list[str] = field(default_factory=list)
    asked: int = 0
    accepted: dict[str, list[str]] = field(default_factory=dict)
    doubtful: int = 0
    associations: int = 0
    trouble: list[str] = field(default_factory=list)

    @property
    def round_trip(self) -> float | None:
        """The median of the echoes."""
        return median(self.round_trips) if self.round_trips else None


class Probe:
    """One peer under questions.  ``told`` hears what is asked now, for whoever waits."""

    def __init__(
        self,
        target: Target,
        *,
        classes: Sequence[str],
        syntaxes: Sequence[str],
        echoes: int = 10,
        told: Callable[[str], None] = lambda what: None,
    ) -> None:
        # The item of the asynchronous operations window is a question of its own, the last.
        self._target = replace(target, asynchronous_operations=1)
        self._classes = classes
        self._syntaxes = syntaxes
        self._echoes = echoes
        self._told = told
        self.findings = Findings()

    async def run(self) -> Findings:
        """Asks everything.  Raises AssociationError when the first association cannot be had;
        what fails later is in `Findings.trouble`."""
        self._told("is it there")
        await self._first()
        self._told("which storage classes it accepts")
        candidates = await self._candidates()
        if candidates:
            await self._pairs(candidates)
        self._told("which roles it grants")
        await self._attempt("SCP/SCU role selection", self._roles)
        self._told("how many operations it lets be under way")
        await self._attempt("the asynchronous operations window", self._window)
        return self.findings

    # -- the questions -------------------------------------------------------------------------

    async def _first(self) -> None:
        found = self.findings
        began = time.perf_counter()
        requestor = await reach(self._target)
        found.connected = time.perf_counter() - began
        contexts = _contexts((uid, (IMPLICIT_VR_LITTLE_ENDIAN,)) for uid in SERVICES)
        began = time.perf_counter()
        await negotiate(requestor, association_request(self._target, contexts))
        found.associated = time.perf_counter() - began
        found.associations += 1
        self._identify(requestor)
        found.services = [uid for uid, _ in requestor.accepted]
        if VERIFICATION in found.services:
            try:
                for _ in range(self._echoes):
                    began = time.perf_counter()
                    found.echo_status = await requestor.echo()
                    found.round_trips.append(time.perf_counter() - began)
            except AssociationError as error:
                found.trouble.append(f"C-ECHO: {error}")
        await self._release(requestor)

    def _identify(self, requestor: Requestor) -> None:
        found = self.findings
        found.maximum_length = requestor.connection.peer_maximum_length
        answer = requestor.connection.acceptance
        if answer is not None:
            information = answer.user_information
            found.implementation_class_uid = information.implementation_class_uid
            found.implementation_version_name = information.implementation_version_name

    async def _candidates(self) -> list[str]:
        """The classes that it does not refuse as such, whatever the syntax."""
        proposals = [(uid, (_EXPLICIT, IMPLICIT_VR_LITTLE_ENDIAN)) for uid in self._classes]
        self.findings.asked = len(proposals)
        unknown: set[str] = set()
        asked: set[str] = set()
        async for contexts, requestor in self._batches(proposals):
            answer = requestor.connection.acceptance
            results = {c.id: c.result for c in answer.presentation_contexts} if answer else {}
            for context in contexts:
                asked.add(context.abstract_syntax)
                if results.get(context.id) == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED:
                    unknown.add(context.abstract_syntax)
        return [uid for uid in self._classes if uid in asked and uid not in unknown]

    async def _pairs(self, candidates: Sequence[str]) -> None:
        pairs = [(uid, (syntax,)) for uid in candidates for syntax in self._syntaxes]
        done = 0
        async for contexts, requestor in self._batches(pairs):
            done += len(contexts)
            self._told(f"in which transfer syntaxes ({done} of {len(pairs)})")
            self.findings.doubtful += len(requestor.doubtful)
            for abstract, syntax in requestor.accepted:
                self.findings.accepted.setdefault(abstract, []).append(syntax)

    async def _roles(self) -> None:
        accepted = self.findings.accepted
        storage = _CT if _CT in accepted else next(iter(accepted), None)
        asked = [uid for uid in (storage, _COMMITMENT) if uid is not None]
        contexts = _contexts((uid, (IMPLICIT_VR_LITTLE_ENDIAN, _EXPLICIT)) for uid in asked)
        roles = [RoleSelection(uid, True, True) for uid in asked]
        requestor = await self._ask(contexts, roles)
        answer = requestor.connection.acceptance
        given = answer.user_information.role_selections if answer is not None else ()
        for uid in asked:
            said = next((role for role in given if role.sop_class_uid == uid), None)
            self.findings.roles[uid] = None if said is None else (said.scu, said.scp)
        await self._release(requestor)

    async def _window(self) -> None:
        target = replace(self._target, asynchronous_operations=_WINDOW)
        contexts = _contexts([(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))])
        requestor = await self._ask(contexts, (), target)
        answer = requestor.connection.acceptance
        said = answer.user_information.asynchronous_operations if answer is not None else None
        if requestor.accepted:
            await requestor.echo()  # some fall at the first message only
        await self._release(requestor)
        self.findings.window = 1 if said is None else said[0]

    # -- associations --------------------------------------------------------------------------

    async def _batches(
        self, proposals: Sequence[tuple[str, tuple[str, ...]]]
    ) -> AsyncIterator[tuple[tuple[PresentationContextRQ, ...], Requestor]]:
        failures = 0
        for start in range(0, len(proposals), MAX_CONTEXTS):
            contexts = _contexts(proposals[start : start + MAX_CONTEXTS])
            try:
                requestor = await self._ask(contexts)
            except AssociationError as error:
                failures += 1
                self.findings.trouble.append(f"{len(contexts)} presentation contexts: {error}")
                if failures == _FAILURES:
                    left = len(proposals) - start - len(contexts)
                    self.findings.trouble.append(f"{left} presentation contexts were not asked for")
                    return
                continue
            failures = 0
            try:
                yield contexts, requestor
                await self._release(requestor)
            finally:
                if not requestor.closed:
                    requestor.abort()

    async def _ask(
        self,
        contexts: Sequence[PresentationContextRQ],
        roles: Sequence[RoleSelection] = (),
        target: Target | None = None,
    ) -> Requestor:
        target = target or self._target
        requestor = await reach(target)
        await negotiate(requestor, association_request(target, contexts, roles))
        self.findings.associations += 1
        return requestor

    async def _attempt(self, what: str, question: Callable[[], Awaitable[None]]) -> None:
        try:
            await question()
        except AssociationError as error:
            self.findings.trouble.append(f"asked for {what}: {error}")

    async def _release(self, requestor: Requestor) -> None:
        try:
            await requestor.release()
        except AssociationError as error:
            self.findings.trouble.append(f"release: {error}")


def _contexts(
    proposals: Iterable[tuple[str, tuple[str, ...]]],
) -> tuple[PresentationContextRQ, ...]:
    return tuple(
        PresentationContextRQ(2 * n + 1, abstract, syntaxes)
        for n, (abstract, syntaxes) in enumerate(proposals)
    )
