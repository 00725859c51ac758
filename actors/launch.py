"""The console script `squadron`: checks that `cluster` is ours, then hands over to the commands."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        import actors.own_package  # noqa: F401  (checks when it is imported)
    except ImportError as error:
        print(f"squadron: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    try:
        from cluster.cli.main import run
    except KeyboardInterrupt:
        # Reading the commands takes seconds on a busy machine; nothing has been begun.
        raise SystemExit(130) from None
    run()
