"""What a configuration says of sending.

Owns the way from remotes, schedules and bandwidths to what the forwarder takes: the destinations,
each with its target, its hours and its speed, and what holds for all of them together.  Must not
know what waits for them, nor how anything is delivered.
"""

import functools
import math
from collections.abc import Mapping

from router.config import Config
from router.forward.permit import Hours
from router.forward.ports import DestinationConfig
from router.forward.regime import Outgoing
from router.forward.throttle import Bandwidth, Speed
from router.net.connector import connect
from router.net.limits import ELSE
from router.net.requestor import RequestorObserver
from router.net.settings import Remote
from router.net.target import Target
from router.queues import windows_of
from rules.window import Windows, parse_windows


def peers_of(config: Config) -> dict[str, tuple[str, int, str]]:
    """Host, port and AE title of those that can be sent to."""
    return {
        name: (remote.host, remote.port, remote.ae_title)
        for name, remote in config.remotes.items()
        if remote.host is not None
    }


def destinations_of(config: Config, observer: RequestorObserver) -> list[DestinationConfig]:
    """The remotes that can be sent to; their associations are told to ``observer``."""
    calling_ae = config.local[0].ae_title
    windows = windows_of(config)
    result = []
    for name, remote in config.remotes.items():
        if remote.host is None:
            continue
        target = Target.of(name, remote, calling_ae)
        result.append(
            DestinationConfig(
                name=name,
                connect=functools.partial(connect, target, observer=observer),
                identity=target,
                peer=(target.host, target.port, target.ae_title),
                associations=remote.associations,
                asynchronous_operations=remote.asynchronous_operations,
                linger=remote.linger,
                association_per=remote.association_per,
                offer=remote.offer,
                retry=remote.retry,
                hours=_hours_of(remote, windows),
                speed=_speed_of(config, remote, windows),
            )
        )
    return result


def outgoing_of(config: Config) -> Outgoing:
    """What holds for all destinations together."""
    network = config.network
    most = network.max_associations_out
    return Outgoing(
        _bandwidth_of(network.bandwidth_out, windows_of(config), config.timezone),
        math.inf if most is None else most,
    )


def _hours_of(remote: Remote, windows: Mapping[str, Windows]) -> Hours | None:
    if remote.schedule is None:
        return None
    return Hours(remote.schedule, windows[remote.schedule], remote.closing, remote.urgent)


def _bandwidth_of(
    setting: Mapping[str, float], windows: Mapping[str, Windows], zone: str
) -> Bandwidth:
    """A bandwidth by the hour; windows that are no schedule's are of the time zone ``zone``."""
    return Bandwidth(
        tuple(
            (windows[name] if name in windows else parse_windows((name,), zone), rate)
            for name, rate in setting.items()
            if name != ELSE
        ),
        setting.get(ELSE, math.inf),
    )


def _speed_of(config: Config, remote: Remote, windows: Mapping[str, Windows]) -> Speed:
    rate = math.inf if remote.rate is None else remote.rate
    return Speed(_bandwidth_of(remote.bandwidth, windows, config.timezone), rate)
