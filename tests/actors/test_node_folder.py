from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from actors.node_folder import session_folder

ANOTHER = """\
import sys
from pathlib import Path
from actors.node_folder import session_folder
(session_folder(Path(sys.argv[1]), sys.argv[2]) / "links").mkdir()
print("made", flush=True)
sys.stdin.read()
"""


def test_the_folder_of_a_session_goes_when_all_its_processes_are_gone(
    tmp_path: Path, root: Path
) -> None:
    parent = tmp_path / "squadron"
    command = [sys.executable, "-c", ANOTHER, str(parent), "session_a"]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        session_folder(parent, "session_b")
        assert (parent / "session_a" / "links").is_dir()

    session_folder(parent, "session_c")
    assert sorted(file.name for file in parent.iterdir()) == [
        "session_b",
        "session_b.lock",
        "session_c",
        "session_c.lock",
    ]


def test_the_folder_is_the_users_own(tmp_path: Path) -> None:
    folder = session_folder(tmp_path / "squadron", "session_a")
    assert [each.stat().st_mode & 0o777 for each in (folder, folder.parent)] == [0o700, 0o700]
