"""Squadron's Python SDK: models in this process, or a server's, by the same calls."""

from cluster.client.aio import AsyncClient, AsyncModel
from cluster.client.client import Client
from cluster.client.measure.monitor import InferenceMonitor, Metrics
from cluster.client.measure.profiler import InferenceProfiler, Profile
from cluster.client.measure.validation import validate_accuracy
from cluster.client.model import Model
from cluster.client.values import BatchFigure, Setting

__all__ = [
    "AsyncClient",
    "AsyncModel",
    "BatchFigure",
    "Client",
    "InferenceMonitor",
    "InferenceProfiler",
    "Metrics",
    "Model",
    "Profile",
    "Setting",
    "validate_accuracy",
]
