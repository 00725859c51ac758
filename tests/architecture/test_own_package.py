from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_foreign_package_named_cluster_is_told_plainly(tmp_path: Path) -> None:
    """The PyPI package `cluster`, installed over ours, must not end in a puzzling import error."""
    foreign = tmp_path / "cluster"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("class HierarchicalClustering: ...\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
        "import actors.launch; actors.launch.main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 1
    assert "pip uninstall cluster" in done.stderr
    assert str(foreign) in done.stderr
    assert "Traceback" not in done.stderr
