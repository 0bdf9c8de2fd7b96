"""What graphc raises when the user, a file or a model is at fault."""

from __future__ import annotations


class GraphcError(Exception):
    """A mistake that graphc explains: what is wrong, where, and what would be right.

    `notes` collects the places the error passed through (an op inside a composite, a layer, a source line),
    innermost first; `str` shows them after the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.places: list[str] = []

    def at(self, place: str) -> GraphcError:
        """Add a place the error passed through; returns the error, to be raised again."""
        if place and place not in self.places:
            self.places.append(place)
        return self

    def __str__(self) -> str:
        return self.message + "".join(f"\n  in {place}" for place in self.places)


class ShapeError(GraphcError):
    """Shapes, ranks or sizes that do not fit each other."""


class DTypeError(GraphcError):
    """A dtype that an op, a layer or a target cannot take."""


class UnsupportedError(GraphcError):
    """Something a target or an importer lacks; the message lists all of it."""


class VerifyError(GraphcError):
    """A module that breaks a rule of the IR."""


class ParseError(GraphcError):
    """IR text that does not parse; the message starts with `line:column`."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{line}:{column}: {message}" if line else message)
        self.line = line
        self.column = column


class FormatError(GraphcError):
    """A file that is broken, truncated or not allowed."""


class TargetError(GraphcError):
    """A target that is unknown or not installed."""
