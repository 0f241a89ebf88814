"""How a command fails: one clear message on standard error, and the right exit code.

Owns the forms.  A message says what happened and why; ``fix`` what to do about it.
"""

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rules import Problem

FAILED = 1
MISUSED = 2


class Failure(click.ClickException):
    """The job failed; exit code 1."""

    exit_code = FAILED

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix

    def show(self, file: IO[Any] | None = None) -> None:
        """To standard error."""
        text = f"dcmrouter: {self.message}" + (f"; {self.fix}" if self.fix else "")
        click.echo(_printable(text), file=file, err=True)


class Misuse(Failure):
    """Bad usage; exit code 2."""

    exit_code = MISUSED


class ConfigurationRefused(click.ClickException):
    """A configuration with problems, one per line; exit code 2.

    ``texts`` are the files that may be shown with them, by name; ``because`` goes before them.
    """

    exit_code = MISUSED

    def __init__(
        self,
        problems: "Sequence[Problem | str]",
        texts: Mapping[str, bytes] | None = None,
        because: str = "",
    ) -> None:
        super().__init__(f"{len(problems)} problems in the configuration")
        self.problems = problems
        self.texts = texts or {}
        self.because = because

    def show(self, file: IO[Any] | None = None) -> None:
        """To standard error."""
        if self.because:
            click.echo(_printable(self.because), file=file, err=True)
        for problem in self.problems:
            click.echo(_printable(str(problem)), file=file, err=True)


def os_error(error: OSError) -> str:
    """The text of an error of the operating system, without its number."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def _printable(text: str) -> str:
    # A peer's or a file's words may hold escape sequences; a problem's text is one line.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
