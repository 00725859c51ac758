"""What a model of torch needs and may be asked for; read by doors and controllers, which never load
torch itself (2.6 s of CPU and 180 MiB a process, measured)."""

from __future__ import annotations

from importlib.util import find_spec

from cluster.errors import ConfigError


def check_transformers() -> None:
    """Raises: ConfigError saying what to install."""
    if find_spec("transformers") is None:
        raise ConfigError(
            "format huggingface needs transformers: pip install 'squadron-serve[cpu,export]'",
            key="engine",
            value="torch",
        )


def dtype_option(options: dict[str, str | int | float | bool]) -> str:
    """The data type to compute in: float32 unless the options say otherwise."""
    found = str(options.get("dtype", "float32"))
    allowed = ("float32", "bfloat16", "float16")
    if found not in allowed:
        raise ConfigError(
            f"option dtype is {found!r}; allowed: {', '.join(allowed)}",
            key="options.dtype",
            value=found,
            allowed=", ".join(allowed),
        )
    return found
