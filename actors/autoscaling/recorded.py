"""What a replica records for Serve, and what Serve's policy reads of it."""

BUSY = "squadron_busy_s"
SERVED = "squadron_served"
"""Seconds of the engine, and requests, since the replica started."""
