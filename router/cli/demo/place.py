"""Where the demonstration runs: a directory of its own, free ports, the example configuration.

Owns what is left behind: nothing.  A directory is only ever removed when it carries the mark of
an earlier demonstration that nobody is running any more.
"""

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from router.cli.failures import Failure, Misuse, os_error
from router.config import Config, load
from router.net.settings import parse_address

_MARK = "made-by-dcmrouter-demo"


@dataclass(frozen=True, slots=True)
class Place:
    """A prepared demonstration; ``config`` is what the file at ``config_path`` says."""

    directory: Path
    config_path: Path
    config: Config

    @property
    def socket(self) -> Path:
        """The gateway's control socket."""
        return self.config.data_dir / "control.sock"

    @property
    def log(self) -> Path:
        """Where the gateway's log goes."""
        return self.directory / "gateway.log"

    def destinations(self) -> list[tuple[str, str, str]]:
        """Name, AE title and address to listen on of each sink."""
        return [
            (name, remote.ae_title, f"{remote.host}:{remote.port}")
            for name, remote in self.config.remotes.items()
            if remote.host is not None
        ]


@contextlib.contextmanager
def prepared(directory: Path, base_port: int | None) -> Iterator[Place]:
    """The directory with its configuration, removed at the end.

    The ports are those of the example, or from ``base_port`` on; 0 takes free ones.
    Raises Failure.
    """
    with _own_directory(directory):
        settings = yaml.safe_load(_example())
        if base_port is not None:
            _set_ports(settings, base_port)
        settings["data_dir"] = os.fspath(directory / "data")
        path = directory / "config.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        place = Place(directory, path, load(path).config)
        _check_ports(place.config)
        yield place


def _example() -> str:
    """The example configuration: packed into the package, or in the checkout beside it."""
    package = resources.files("router")
    for path in (package / "config.example.yaml", package / ".." / "config.example.yaml"):
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="utf-8")
    raise Failure("config.example.yaml is not there", "run the demonstration from the checkout")


# -- the directory


@contextlib.contextmanager
def _own_directory(directory: Path) -> Iterator[None]:
    mark = directory / _MARK
    try:
        if directory.exists():
            _clear(directory, mark)
        directory.mkdir(parents=True)
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(
            f"cannot make {directory}: {os_error(error)}",
            "choose another with --directory",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
        shutil.rmtree(directory, ignore_errors=True)


def _clear(directory: Path, mark: Path) -> None:
    """Remove what a demonstration left that was killed.  Raises Failure if it is anything else."""
    try:
        descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise Misuse(
            f"{directory} exists, and not by an earlier demonstration",
            "move it away, or choose another with --directory",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Failure(
            f"another demonstration runs in {directory}",
            "end that one, or choose another with --directory and --base-port",
        ) from None
    else:
        shutil.rmtree(directory)
    finally:
        os.close(descriptor)


# -- the ports


def _set_ports(settings: dict[str, Any], base: int) -> None:
    places = 1 + len(settings["local"]) + len(settings["remotes"])
    if base and base + places > 65536:
        raise Misuse(f"--base-port {base} leaves no room for {places} ports")
    ports = iter(_free(places) if base == 0 else range(base, base + places))
    for section in (settings["http"], *settings["local"]):
        host, _ = parse_address(section["listen"])
        section["listen"] = f"{host}:{next(ports)}"
    for remote in settings["remotes"].values():
        remote["port"] = next(ports)


def _free(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def _check_ports(config: Config) -> None:
    """Raises Failure naming every port that somebody has."""
    listens = [config.http.listen, *(ae.listen for ae in config.local)]
    listens += [f"{r.host}:{r.port}" for r in config.remotes.values() if r.host is not None]
    taken = []
    for host, port in map(parse_address, listens):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
                sock.listen(1)
            except OSError as error:
                taken.append(f"port {port} {_owner(port) or os_error(error)}")
    if taken:
        raise Failure(
            "; ".join(taken), "end what has it, or choose others with --base-port (0: free ones)"
        )


def _owner(port: int) -> str:
    """``is taken by NAME (process N)``, as far as this user may see; "" when it is not."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:  # noqa: PTH115 - no path: socket:[N]
                        name = (process / "comm").read_text().strip()
                        return f"is taken by {name} (process {process.name})"
    return "is taken by a process of another user"
