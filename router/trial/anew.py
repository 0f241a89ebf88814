"""One instance decided anew, by the rules of now.

Owns what is made of the decision.  Changes nothing.
"""

from collections.abc import Iterable

from router.ingest.routes import route_meta
from router.spool.record import InstanceMeta
from router.trial.facts import Identify, Scanned, facts_of_record, scan
from rules.decision import Decision
from rules.ruleset import RuleSet


def decide_anew(
    rules: RuleSet, identify: Identify, meta: InstanceMeta, pieces: Iterable[bytes]
) -> InstanceMeta:
    """The description that it would have were it received now, but for the time.

    ``pieces`` are those of its data set, of which no more are taken than are needed.
    """
    scanned = scan(meta.transfer_syntax_uid, rules.tags, pieces)
    return decided(rules, identify, meta, scanned)._replace(rules_version=rules.version)


def decided(
    rules: RuleSet, identify: Identify, meta: InstanceMeta, scanned: Scanned
) -> InstanceMeta:
    """``meta`` with another decision."""
    if scanned.error:  # an attribute that only these rules look at lies behind a fault
        decision = Decision("hold", (), f"cannot be parsed: {scanned.error}", rules.version)
    else:
        decision = rules.decide(facts_of_record(meta, scanned, identify))
    return meta._replace(
        disposition=decision.disposition,
        reason=decision.reason,
        routes=tuple(map(route_meta, decision.routes)),
        tags=decision.tags,
        keep=decision.keep_for,
    )
