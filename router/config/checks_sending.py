"""What the settings of sending must agree with: schedules by name, and each other.

Owns these checks; a problem stands where the hand must go.
"""

from collections.abc import Iterator, Mapping

from router.config.explain import dotted
from router.config.model import Config
from router.config.place import at
from router.net.limits import ELSE
from rules.nearest import did_you_mean
from rules.source import MappingNode, Node, Problem
from rules.window import parse_span


def sending(config: Config, root: Node) -> Iterator[Problem]:
    """Everything about when, and how fast, remotes are sent to that cannot be."""
    for name, remote in config.remotes.items():
        path = ("remotes", name)
        if remote.schedule is None:
            for key in sorted({"closing", "urgent"} & remote.model_fields_set):
                yield at(root, *path, key).problem(
                    f"{dotted((*path, key))} says nothing without a schedule",
                    "name one: schedule: NAME",
                )
        elif remote.schedule not in config.schedules:
            fix = did_you_mean(remote.schedule, config.schedules) or "add it under 'schedules'"
            yield at(root, *path, "schedule").problem(
                f"{dotted((*path, 'schedule'))}: no schedule is called {remote.schedule!r}", fix
            )
        yield from _windows(config, root, (*path, "bandwidth"), remote.bandwidth)
    network = config.network
    yield from _windows(config, root, ("network", "bandwidth_out"), network.bandwidth_out)
    destinations = [name for name, remote in config.remotes.items() if remote.host is not None]
    if network.max_associations_out is not None and network.max_associations_out < len(
        destinations
    ):
        yield at(root, "network", "max_associations_out").problem(
            f"network.max_associations_out is {network.max_associations_out}, and there are "
            f"{len(destinations)} remotes with a host: one is kept for each",
            f"set it to {len(destinations)} or more",
        )


def _windows(
    config: Config, root: Node, path: tuple[str, ...], bandwidth: Mapping[str, float]
) -> Iterator[Problem]:
    node = at(root, *path)
    for window in bandwidth:
        if window == ELSE or window in config.schedules:
            continue
        try:
            parse_span(window)
        except ValueError as error:
            message, fix = map(str, (*error.args, "")[:2])
            near = did_you_mean(window, (*config.schedules, ELSE))
            if not any(c.isdigit() for c in window):  # meant as a name
                message = f"{window!r} is neither a window nor a schedule"
                fix = near or fix
            key = node.key(window) if isinstance(node, MappingNode) else node
            yield key.problem(f"{dotted(path)}: {message}", near or fix)
