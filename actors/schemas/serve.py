"""Prints the JSON Schema of Ray Serve's config files: `python -m actors.schemas.serve`."""

from __future__ import annotations

import json

from ray.serve.schema import ServeDeploySchema


def serve_schema() -> dict[str, object]:
    """Of the Serve that is installed here."""
    found: dict[str, object] = ServeDeploySchema.model_json_schema()
    return found


if __name__ == "__main__":
    print(json.dumps(serve_schema()))
