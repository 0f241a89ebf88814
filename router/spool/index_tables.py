"""What the parts of the index have in common.

Owns the putting together of it, once for each database.  Must not know what is asked of the index.
"""

from dataclasses import dataclass

from router.spool.index_database import Database
from router.spool.index_deliver import Queues
from router.spool.index_duplicates import Duplicates
from router.spool.index_gates import Gates
from router.spool.index_names import Names
from router.spool.index_peers import Peers
from router.spool.index_plans import Plans
from router.spool.index_select import Selector


@dataclass(frozen=True, slots=True)
class Tables:
    """Names, plans, gates and peers are kept in memory as they are in the database: one of each."""

    db: Database
    destinations: Names
    rules: Names
    plans: Plans
    gates: Gates
    peers: Peers
    duplicates: Duplicates
    queues: Queues
    select: Selector

    @classmethod
    def of(cls, db: Database) -> "Tables":
        """Those of an open database."""
        destinations = Names(db, "destination")
        plans = Plans(db)
        gates = Gates(db, destinations, plans)
        peers = Peers(db)
        return cls(
            db=db,
            destinations=destinations,
            rules=Names(db, "rule"),
            plans=plans,
            gates=gates,
            peers=peers,
            duplicates=Duplicates(db, destinations, plans, gates, peers),
            queues=Queues(db, destinations, gates, plans, peers),
            select=Selector(db, destinations),
        )
