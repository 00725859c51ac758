"""What the controller and the applications of models are called, by an application's name."""

from __future__ import annotations

NAMESPACE = "squadron"
"""Of Ray's named actors."""


def controller_name(app: str) -> str:
    return f"squadron-controller:{app}"


def desk_name(app: str) -> str:
    """Of the actor that has an application's jobs."""
    return f"squadron-jobs:{app}"


def app_prefix(app: str) -> str:
    """What the names of the applications of an application's models begin with."""
    return f"{app}+"


def main_app(app: str) -> str:
    """The application that one of a model belongs to; another one is its own."""
    return app.partition("+")[0]
