"""What the autoscaler, Serve's policy and the replicas call each other."""

NAMESPACE = "squadron"

BUSY = "squadron_busy_s"
SERVED = "squadron_served"
ROWS = "squadron_rows"
MEMORY = "squadron_memory_bytes"
BATCH = "squadron_batch_s:"
"""What a replica records for Serve: seconds of the engine, requests, and their rows, since it
started; what its process holds; and what a batch takes, its rows behind the name."""


def autoscaler_name(app: str) -> str:
    return f"squadron-autoscaler:{app}"
