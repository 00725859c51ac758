"""A second opinion on capacity from wrk, where it is installed; nothing depends on it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from loadtests.connections import Target

SCRIPT = """wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
"""


def wrk_rate(target: Target, connections: int, seconds: float, scratch: Path) -> float | None:
    """Requests a second of one thread; None without wrk or when it met errors."""
    program = shutil.which("wrk")
    if program is None:
        return None
    head, _, body = target.request.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "body.bin").write_bytes(body)
    headers = [
        line.split(": ", 1) for line in lines if not line.startswith(("content-length", "host"))
    ]
    script = scratch / "post.lua"
    script.write_text(
        SCRIPT.format(
            body=scratch / "body.bin",
            headers="\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers),
        )
    )
    url = f"http://{target.host}:{target.port}{first.split()[1]}"
    command = [
        program,
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "-s",
        str(script),
    ]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 30)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        return None
    return float(found[1])
