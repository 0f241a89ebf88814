"""How the readers of what a person wrote say no."""


class Refusal(ValueError):
    """A text that cannot be taken: what is wrong with it, and what would mend it ("" for nothing
    to suggest).  Whoever knows where the text stood turns it into a problem."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix
