"""Of many inputs the few that reach most: ``python -m tests.fuzz.keep TARGET DIRECTORY ...``.

Takes the kept corpus of the target and the inputs in the directories, and leaves in the corpus the
smallest set that executes every line, in every order of two lines, that any of them executes.
Inputs of findings, whose names have a hyphen, stay.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from types import FrameType

from tests.fuzz.atheris_run import CORPUS
from tests.fuzz.core import Target
from tests.fuzz.targets import TARGETS

_OURS = ("/router/", "/rules/")
_LONGEST = 4096
Steps = frozenset[tuple[int, int, int]]


def steps(target: Target, data: bytes) -> Steps:
    """Pairs of lines of the code under test that follow each other in this case."""
    found: set[tuple[int, int, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> object:
        code = frame.f_code
        if "/tests/" in code.co_filename or not any(o in code.co_filename for o in _OURS):
            return None
        last, key = 0, hash((code.co_filename, code.co_name))

        def line(frame: FrameType, event: str, _: object) -> object:
            nonlocal last
            if event == "line":
                found.add((key, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return frozenset(found)


def choose(reached: dict[bytes, Steps], most: int) -> list[bytes]:
    """Greedily, at each turn what adds most for its length."""
    left = dict(reached)
    covered: set[tuple[int, int, int]] = set()
    chosen: list[bytes] = []
    while left and len(chosen) < most:
        best = max(left, key=lambda data: (len(left[data] - covered), -len(data)))
        if left[best] <= covered:
            break
        covered |= left.pop(best)
        chosen.append(best)
    return chosen


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.keep", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("directories", type=Path, nargs="*")
    parser.add_argument("--most", type=int, default=20, help="inputs to keep")
    options = parser.parse_args(arguments)
    target, kept = TARGETS[options.target], CORPUS / options.target
    kept.mkdir(parents=True, exist_ok=True)
    files = [path for place in (kept, *options.directories) for path in sorted(place.iterdir())]
    numbered = [path for path in kept.glob("*.bin") if path.stem.isalnum()]
    inputs = {path.read_bytes() for path in files if path.is_file()}
    reached = {data: steps(target, data) for data in inputs if len(data) <= _LONGEST}
    chosen = choose(reached, options.most)
    for path in numbered:
        path.unlink()
    for data in chosen:
        (kept / f"{hashlib.sha256(data).hexdigest()[:12]}.bin").write_bytes(data)
    print(f"{target.name}: {len(chosen)} of {len(inputs)} inputs, {sum(map(len, chosen))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
