"""Coverage-guided cases of one target: ``python -m tests.fuzz.atheris_run TARGET DIRECTORY``.

Needs atheris, which is no dependency of this product and does not install everywhere: give it an
environment of its own.  The directory gets the target's seeds, then what libFuzzer keeps; `keep`
picks of it what is worth keeping.  Further arguments go to libFuzzer, ``-max_total_time=60`` above
all, without which it has no end.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from tests.fuzz.tree import flatten

CORPUS = Path(__file__).parent / "corpus"


def _atheris() -> ModuleType | None:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def main(arguments: list[str]) -> int:
    atheris = _atheris()
    if atheris is None:
        print("atheris is not installed: pip install atheris, in an environment of its own")
        return 2
    with atheris.instrument_imports(include=["router.ul", "router.dimse", "router.dicom", "rules"]):
        from tests.fuzz.targets import TARGETS
    if len(arguments) < 2 or arguments[0] not in TARGETS:
        print(f"name a target and a directory; targets: {', '.join(TARGETS)}")
        return 2
    target, directory = TARGETS[arguments[0]], Path(arguments[1])
    directory.mkdir(parents=True, exist_ok=True)
    for number, (head, nodes) in enumerate(target.seeds()):
        (directory / f"seed-{number}").write_bytes(flatten(head, nodes).data)

    def one(data: bytes) -> None:
        target.check(data)

    kept = CORPUS / target.name
    corpora = [str(directory), *([str(kept)] if kept.is_dir() else [])]
    atheris.Setup([sys.argv[0], *arguments[2:], *corpora], one)
    atheris.Fuzz()  # ends the process itself
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
