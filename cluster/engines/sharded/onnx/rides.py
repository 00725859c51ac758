"""What a stage's file says beside its graph; read without the package that cuts."""

from __future__ import annotations

RIDES = "squadron_rides"
"""Key of the metadata: the caller's inputs that later stages need, as JSON."""
