"""``serve``: the gateway in the foreground.

Owns what belongs to the process rather than to the gateway: the log, the event loop, limits of
the operating system, the garbage collector, and the exit code.
"""

import asyncio
import gc
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import FAILED, Failure, os_error
from router.cli.options import config_option, load_config

if TYPE_CHECKING:
    from router.config import Config, Loaded

_SWITCH_INTERVAL = 0.001
"""Seconds after which a thread gives up the interpreter lock to one that waits: the event loop must
not wait for the index's statements being made, for 5 ms as it would by default."""
_ASIDE = 8
"""Threads for what waits for a disk or takes its time: reading what is sent on, reports."""


@click.command()
@config_option
def serve(config_path: Path | None) -> None:
    """Run the gateway in the foreground, logging to standard error.

    SIGTERM and SIGINT stop it: associations are finished or aborted within
    network.stop_timeout, and nothing that was acknowledged is lost.  SIGHUP reloads the
    configuration, all or nothing.  SIGUSR1 pauses all destinations, SIGUSR2 resumes those that it
    paused.
    """
    before = note_signals()
    note = finish_rollback(config_path) if config_path is not None else ""
    loaded = load_config(config_path)
    assert config_path is not None
    raise_file_limit()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    import uvloop

    code = uvloop.run(_run(loaded, config_path, note, before))
    if code:
        raise SystemExit(code)


def finish_rollback(path: Path) -> str:
    """Before the files are read: that they are all old or all new, whatever was broken off.

    What was done about it, for the log; "" for nothing.
    """
    from router.config.restore import RestoreError, finish

    try:
        return finish(path)
    except RestoreError as error:
        raise Failure(str(error), error.fix) from error


async def _run(loaded: "Loaded", path: Path, note: str, before: list[int]) -> int:
    import structlog

    from router.app import Gateway
    from router.config import load
    from router.observe.log import configure
    from router.spool.errors import SpoolError
    from router.spool.threads import start_all

    def applied(config: "Config") -> None:
        log.set_level(config.log.level)

    gateway = Gateway(loaded, lambda overlay: load(path, overlay=overlay), applied)
    settings = loaded.config.log
    log = configure(
        settings.level,
        settings.format,
        background=True,
        patient_data=settings.patient_data,
        counters=gateway.counters,
    )
    logger = structlog.get_logger("serve")
    if note:
        logger.warning("configuration", note=note)
    try:
        hung_up = _cancel_on_signals()
        aside = ThreadPoolExecutor(_ASIDE, "aside")
        start_all(aside, _ASIDE, "what takes its time beside the event loop")
        asyncio.get_running_loop().set_default_executor(aside)
        await gateway.start()
        tune_collector()
        await gateway.serve(reload=hung_up.is_set, before=before)
    except asyncio.CancelledError:
        logger.info("stopped before it had started")
    except (SpoolError, OSError) as error:
        why = os_error(error) if isinstance(error, OSError) else str(error)
        logger.error("the gateway cannot run", why=why)
        return FAILED
    except Exception:
        logger.exception("the gateway failed; this is a fault in dcmrouter, please report it")
        return FAILED
    finally:
        log.close()
    return 0


def note_signals() -> list[int]:
    """From now on SIGHUP, SIGUSR1 and SIGUSR2 do not end the process, as they would by default:
    they are noted in what is returned, for the gateway to obey once it runs."""
    heard: list[int] = []
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: heard.append(number))
    return heard


def _cancel_on_signals() -> asyncio.Event:
    """Until the gateway runs, and takes the signals itself, they cancel its start.

    What is returned is set by a SIGHUP: the file may have changed since it was read.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    hung_up = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    return hung_up


def raise_file_limit() -> None:
    """Let the process open as many files and sockets as the system's administrator allows.

    The soft limit of most systems, 1,024, is for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_collector() -> None:
    """Spare the garbage collector what was made at start and lives as long as the process.

    A full collection then looks at what associations leave behind, not at every module and the
    compiled rules; young generations are collected less often, since most of what a message
    makes is freed by its reference count.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
