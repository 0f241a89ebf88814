"""What no single setting can see: names that must exist, addresses that must not collide.

Owns the checks across sections and the warnings.  Everything here is reported at the place in
the file to which the hand must go.
"""

import ipaddress
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from router.config.checks_sending import sending
from router.config.checks_time import over_for_good, past_holidays, retries
from router.config.explain import dotted
from router.config.model import Config
from router.config.place import at as at
from router.net.admission import parse_network
from router.net.settings import LocalAE, parse_address
from rules import RuleSet
from rules.load import warnings as rule_warnings
from rules.nearest import did_you_mean
from rules.pattern import Exact, glob_matcher, is_glob
from rules.rule import Match, Rule, leaves_of
from rules.source import MappingNode, Node, Problem, ScalarNode

_NAME = re.compile(r"\w[\w.-]{0,63}")
_TITLE = re.compile(r"\w([\w .-]{0,62}[\w.-])?")


def misplaced(root: MappingNode) -> tuple[MappingNode, list[Problem]]:
    """Sections that stand among the remotes, a problem for each; and the file as it was meant.

    A remote may be called like a section: what has an AE title is one.
    """
    remotes = root.get("remotes")
    found = {
        name: (key, value)
        for name, (key, value) in (
            remotes.entries.items() if isinstance(remotes, MappingNode) else ()
        )
        if name in Config.model_fields
        and not (isinstance(value, MappingNode) and "ae_title" in value.entries)
    }
    if not found or not isinstance(remotes, MappingNode):
        return root, []
    inside = {name: each for name, each in remotes.entries.items() if name not in found}
    whole = {**found, **root.entries}
    whole["remotes"] = (root.key("remotes"), replace(remotes, entries=inside))
    told = [
        key.problem(f"{name!r} stands among the remotes", "move it left, to where 'remotes' is")
        for name, (key, _) in found.items()
    ]
    return replace(root, entries=whole), told


def problems(config: Config, root: Node) -> Iterator[Problem]:
    """Everything that makes a configuration unfit although each setting is sound."""
    yield from _remote_names(config, root)
    yield from _names(root)
    yield from _accepts(config, root)
    yield from _listeners(config, root)
    yield from _remotes(config, root)
    yield from sending(config, root)
    yield from retries(config, root)
    if config.spool.large_instance > config.spool.segment_size // 4:
        yield at(root, "spool", "large_instance").problem(
            "spool.large_instance is more than a quarter of spool.segment_size",
            f"set it to at most {config.spool.segment_size // 4} bytes: "
            "the instances below it lie together in segments",
        )
    yield from _retention(config, root)
    yield from _commitment(config, root)


def _commitment(config: Config, root: Node) -> Iterator[Problem]:
    settings = config.commitment
    if settings is None:
        return
    titles = [ae.ae_title for ae in config.local]
    for place, title in enumerate(settings.local):
        if title not in titles:
            yield at(root, "commitment", "local", place).problem(
                f"commitment.local: {title!r} is no local AE", did_you_mean(title, titles)
            )
    for place, name in enumerate(settings.destinations):
        node = at(root, "commitment", "destinations", place)
        remote = config.remotes.get(name)
        if remote is None:
            yield node.problem(
                f"commitment.destinations: {name!r} is no remote",
                did_you_mean(name, config.remotes) or "add it under 'remotes'",
            )
        elif remote.host is None:
            yield node.problem(f"commitment.destinations: {name!r} has no host to send to")
        elif settings.when == "committed" and remote.commitment is None:
            yield node.problem(
                f"commitment.destinations: {name!r} is not asked for commitment",
                f"set remotes.{name}.commitment: true, or commitment.when: delivered",
            )
    if settings.when == "safe" and settings.destinations:
        yield at(root, "commitment", "destinations").problem(
            "commitment.destinations does nothing with 'when: safe'",
            "set commitment.when to delivered or committed",
        )
    if settings.when == "committed" and not settings.destinations:
        yield at(root, "commitment", "when").problem(
            "commitment.when: 'committed' needs commitment.destinations",
            "name remotes that are asked for commitment themselves",
        )
    if settings.cap < settings.first:
        yield at(root, "commitment", "cap").problem("commitment.cap is less than commitment.first")


def _retention(config: Config, root: Node) -> Iterator[Problem]:
    spool = config.spool
    if spool.low_water is not None and spool.high_water is None:
        yield at(root, "spool", "low_water").problem(
            "spool.low_water does nothing without spool.high_water",
            "add the mark above which settled instances are purged, as in high_water: 85%",
        )
    elif spool.marks is not None and spool.marks[1] >= spool.marks[0]:
        yield at(root, "spool", "low_water").problem(
            "spool.low_water is not below spool.high_water",
            "a purge begins above the high mark and ends at the low one",
        )
    if spool.archive is not None:
        folder = Path(os.path.normpath(spool.archive.folder))
        data = Path(os.path.normpath(config.data_dir.expanduser().absolute()))
        if folder.is_relative_to(data):
            yield at(root, "spool", "archive", "folder").problem(
                "spool.archive.folder lies in data_dir",
                "name a folder of its own: what lies in data_dir is the gateway's alone",
            )


def warnings(config: Config, rules: RuleSet, root: Node, now: float) -> Iterator[Problem]:
    """What is allowed and yet hardly meant; ``now`` in seconds since the epoch."""
    if not rules.rules:
        yield root.problem("there are no rules", "everything that is received will be held")
    yield from rule_warnings(rules, root.file, now)
    for name, remote in config.remotes.items():
        node = at(root, "remotes", name)
        if remote.host is not None and _is_ourselves(config, remote.host, remote.port):
            yield node.problem(
                f"remote {name!r} is this gateway itself",
                "what is sent to it comes back, and round again",
            )
    yield from _ambiguous_callers(config, root)
    yield from past_holidays(config, root, now)
    yield from over_for_good(config, root, now)
    for index, ae in enumerate(config.local):
        if ae.accept == ():
            yield at(root, "local", index, "accept").problem(f"nobody may call {ae.ae_title!r}")
    titles = [ae.ae_title for ae in config.local]
    for rule in rules.rules:
        for title in _called(rule):
            if title not in titles:
                yield Problem(
                    rule.file or root.file,
                    rule.line,
                    rule.column,
                    f"rule {rule.name!r} waits for called AE {title!r}, which is no local AE",
                    did_you_mean(title, titles),
                )


def _called(rule: Rule) -> Iterator[str]:
    for leaf in leaves_of(rule.condition):
        if isinstance(leaf, Match) and leaf.subject == "called_ae":
            yield from (p.text for p in leaf.patterns if isinstance(p, Exact))


def _remote_names(config: Config, root: Node) -> Iterator[Problem]:
    section = root.get("remotes") if isinstance(root, MappingNode) else None
    for name in config.remotes:
        if name != "any" and _NAME.fullmatch(name) and not _is_network(name):
            continue
        node: Node = section.key(name) if isinstance(section, MappingNode) else root
        yield node.problem(
            f"a remote cannot be called {name!r}",
            "names have letters, digits, '.', '_' and '-', and are neither 'any' nor an address",
        )


def _names(root: Node) -> Iterator[Problem]:
    """What people call their conditions, lists and schedules."""
    for section in ("conditions", "lists", "schedules"):
        node = root.get(section) if isinstance(root, MappingNode) else None
        for name in node.entries if isinstance(node, MappingNode) else ():
            if not _TITLE.fullmatch(name):
                assert isinstance(node, MappingNode)
                yield node.key(name).problem(
                    f"{name!r} is no name for one of {section}",
                    "names have letters, digits, spaces, '.', '_' and '-', 64 at most",
                )


def _accepts(config: Config, root: Node) -> Iterator[Problem]:
    by_title = {remote.ae_title: name for name, remote in config.remotes.items()}
    for index, ae in enumerate(config.local):
        seen: set[str] = set()
        for place, entry in enumerate(() if ae.accept == "any" else ae.accept):
            path = ("local", index, "accept", place)
            node = at(root, *path)
            shown = node.shown if isinstance(node, ScalarNode) else repr(entry)
            if entry in seen:
                yield node.problem(f"{dotted(path[:-1])} has {shown} twice")
            seen.add(entry)
            if entry == "any":
                yield node.problem(f"{dotted(path)}: 'any' cannot be in a list", "accept: any")
            elif entry in config.remotes or is_glob(entry) or _is_network(entry):
                continue
            elif wider := _widened(entry):
                yield node.problem(
                    f"{dotted(path)}: {shown} is not a network", f"did you mean {wider!r}?"
                )
            else:
                fix = did_you_mean(entry, config.remotes)
                if entry in by_title:
                    fix = f"it is the AE title of remote {by_title[entry]!r}: write that name"
                yield node.problem(
                    f"{dotted(path)}: {shown} is neither a remote nor a glob nor a network",
                    fix or "add it under 'remotes'",
                )


def _listeners(config: Config, root: Node) -> Iterator[Problem]:
    seen: list[tuple[str, int, LocalAE, int]] = []
    for index, ae in enumerate(config.local):
        host, port = parse_address(ae.listen)
        for other_host, other_port, other, where in seen:
            if port != other_port or port == 0:
                continue
            if host == other_host and ae.ae_title == other.ae_title:
                yield at(root, "local", index, "ae_title").problem(
                    f"local[{index}].ae_title: {ae.ae_title!r} is on port {port} already",
                    f"it is local[{where}]",
                )
            elif host != other_host and _overlap(host, other_host):
                yield at(root, "local", index, "listen").problem(
                    f"local[{index}].listen: {ae.listen!r} collides with {other.listen!r}",
                    "write the same address for both to let them share the port",
                )
        seen.append((host, port, ae, index))
    host, port = parse_address(config.http.listen)
    for other_host, other_port, other, where in seen:
        if port == other_port != 0 and (host == other_host or _overlap(host, other_host)):
            yield at(root, "http", "listen").problem(
                f"http.listen: {config.http.listen!r} collides with local[{where}] "
                f"on {other.listen!r}"
            )
            break


def _remotes(config: Config, root: Node) -> Iterator[Problem]:
    ends: dict[tuple[str, str, int], str] = {}
    for name, remote in config.remotes.items():
        for place, entry in enumerate(remote.addresses):
            if not _is_network(entry):
                wider = _widened(entry)
                yield at(root, "remotes", name, "addresses", place).problem(
                    f"remotes.{name}.addresses: {entry!r} is not an address or network",
                    f"did you mean {wider!r}?" if wider else "",
                )
        if remote.retry.cap < remote.retry.first:
            yield at(root, "remotes", name, "retry", "cap").problem(
                f"remotes.{name}.retry.cap is less than retry.first"
            )
        if remote.host is None:
            continue
        if not remote.host.strip() or re.search(r"[\s/]", remote.host):
            yield at(root, "remotes", name, "host").problem(
                f"remotes.{name}.host: {remote.host!r} is not a host name or address"
            )
        end = (remote.ae_title, remote.host.lower(), remote.port)
        if end in ends:
            yield at(root, "remotes", name).problem(
                f"remote {name!r} is the same system as {ends[end]!r}",
                "a rule that names both would send everything twice",
            )
        ends.setdefault(end, name)


def _ambiguous_callers(config: Config, root: Node) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, remote in config.remotes.items():
        if remote.addresses:
            continue
        if remote.ae_title in seen and not _told_apart(config, name, seen[remote.ae_title]):
            yield at(root, "remotes", name).problem(
                f"remotes {seen[remote.ae_title]!r} and {name!r} have the same AE title",
                "give them addresses, so that a call of either is known",
            )
        seen.setdefault(remote.ae_title, name)


def _told_apart(config: Config, one: str, other: str) -> bool:
    """Whether each calls from a host that is known to us: names are not looked up."""
    hosts = [config.remotes[name].host for name in (one, other)]
    return len({parse_network(host) for host in hosts if host} - {None}) == 2


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _widened(text: str) -> str:
    """The network that an address with host bits set probably meant, or ""."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return ""


def _overlap(one: str, other: str) -> bool:
    """Whether two listening addresses on one port cannot both be bound."""
    wild = {"0.0.0.0": 4, "::": 6}
    return any(wild.get(a) == (6 if ":" in b else 4) for a, b in ((one, other), (other, one))) or {
        one,
        other,
    } == {"localhost", "127.0.0.1"}


def _is_ourselves(config: Config, host: str, port: int) -> bool:
    for ae in config.local:
        ours, our_port = parse_address(ae.listen)
        loopback = host in ("localhost", "::1") or glob_matcher("127.*")(host)
        if port == our_port and (host == ours or (loopback and ours in ("0.0.0.0", "::"))):
            return True
    return False
