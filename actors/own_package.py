"""`cluster` is also the name of a package on PyPI: say so plainly when that one was imported."""

from __future__ import annotations

from pathlib import Path


def check_own_package() -> None:
    """Raises: ImportError naming the foreign package. Call before anything of `cluster` is used."""
    import cluster

    ours = Path(__file__).resolve().parent.parent / "cluster"
    found = Path(cluster.__file__ or "(a namespace without a file)").resolve().parent
    if found != ours:
        raise ImportError(
            f"Squadron's package 'cluster' should be at {ours}, but Python found {found}. "
            f"A package of the same name is installed: run `pip uninstall cluster` in this "
            f"environment, or use the environment that `make setup` makes."
        )


check_own_package()
