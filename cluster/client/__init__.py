"""Squadron's Python SDK: models in this process, or a server's, by the same calls."""

from cluster.client.ab_test import AbStatistics, ABTest, ArmStatistics
from cluster.client.aio import AsyncClient, AsyncModel
from cluster.client.client import Client
from cluster.client.custom_operator import CustomOperator, custom_operator
from cluster.client.ensemble import ModelEnsemble
from cluster.client.measure.benchmark import benchmark
from cluster.client.measure.monitor import InferenceMonitor, Metrics
from cluster.client.measure.profiler import InferenceProfiler, Profile
from cluster.client.measure.validation import validate_accuracy
from cluster.client.model import Model
from cluster.client.values import BatchFigure, Setting

__all__ = [
    "ABTest",
    "AbStatistics",
    "ArmStatistics",
    "AsyncClient",
    "AsyncModel",
    "BatchFigure",
    "Client",
    "CustomOperator",
    "InferenceMonitor",
    "InferenceProfiler",
    "Metrics",
    "Model",
    "ModelEnsemble",
    "Profile",
    "Setting",
    "benchmark",
    "custom_operator",
    "validate_accuracy",
]
