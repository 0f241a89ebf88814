"""What the commands that try rules have in common: the rules, and what stands around them.

Owns how a caller's name, a time and a configuration come to a trial; must not know its results.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from router.cli.failures import Failure, Misuse
from router.cli.options import load_config
from router.net.admission import Admission
from router.spool.errors import SpoolError
from router.spool.index_view import IndexView
from router.spool.look import Lookout
from rules.rule import Match, leaves_of
from rules.ruleset import RuleSet
from rules.window import zone_of

if TYPE_CHECKING:
    from router.config import Config, Loaded


@dataclass(frozen=True, slots=True)
class Stage:
    """The rules of a configuration, as a gateway that runs on it would decide by them.

    ``zone`` is the time zone in which times are read and shown.
    """

    loaded: "Loaded"
    zone: str
    _admission: Admission

    @property
    def rules(self) -> RuleSet:
        """The rules."""
        return self.loaded.rules

    @property
    def config(self) -> "Config":
        """The rest."""
        return self.loaded.config

    @property
    def called_ae(self) -> str:
        """The AE title that is called when nothing else is said: the only one, or ""."""
        titles = {ae.ae_title for ae in self.config.local}
        return titles.pop() if len(titles) == 1 else ""

    def identify(self, calling_ae: str, source: str) -> str:
        """The name of the remote that calls so from there; "" for a stranger."""
        return next(iter(self._admission.identify(calling_ae, source)), "")

    def unknown_caller(self, calling_ae: str) -> bool:
        """Whether the rules ask who or whence a caller is that its AE title alone cannot tell:
        a remote with `addresses` has it."""
        return any(
            remote.ae_title == calling_ae and remote.addresses
            for remote in self.config.remotes.values()
        ) and any(
            isinstance(leaf, Match) and leaf.subject in ("remote", "source")
            for rule in self.rules.rules
            if rule.disabled is None
            for leaf in leaves_of(rule.condition)
        )

    def moment(self, text: str) -> float:
        """A time as it is given to a command, in seconds since the epoch.  Raises Misuse."""
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            raise Misuse(f"{text!r} is no time", "write it as 2026-11-21T02:00") from None
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone_of(self.zone))
        return found.timestamp()

    def local(self, moment: float) -> str:
        """``2026-11-21 02:00:00``, as the clock on the wall shows it."""
        there = datetime.fromtimestamp(moment, UTC).astimezone(zone_of(self.zone))
        return f"{there:%Y-%m-%d %H:%M:%S}"


def set_stage(path: Path | None) -> Stage:
    """The stage of a configuration.  Raises Misuse, ConfigurationRefused."""
    loaded = load_config(path)
    config = loaded.config
    admission = Admission(config.local, config.remotes, config.network)
    return Stage(loaded, config.timezone, admission)


@contextmanager
def lookout(data_dir: Path) -> Iterator[tuple[Lookout, IndexView]]:
    """The spool of a gateway, running or not, to be looked at.  Raises Failure."""
    index = data_dir / "index.sqlite"
    if not index.is_file():
        raise Failure(
            f"nothing was ever received in {data_dir}: it has no index",
            "correct data_dir, or name the gateway's configuration with --config",
        )
    try:
        view = IndexView(index)
    except SpoolError as error:
        raise Failure(str(error)) from None
    found = Lookout(data_dir / "spool", view)
    try:
        yield found, view
    except SpoolError as error:
        raise Failure(str(error)) from None
    finally:
        found.close()
        view.close()
