"""What the autoscaler, Serve's policy and the replicas call each other."""

NAMESPACE = "squadron"

BUSY = "squadron_busy_s"
SERVED = "squadron_served"
MEMORY = "squadron_memory_bytes"
"""What a replica records for Serve: seconds of the engine, and requests, since it started; and
what its process holds."""


def autoscaler_name(app: str) -> str:
    return f"squadron-autoscaler:{app}"
