"""A real S3 server on loopback (moto's), in a thread of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest import mock

import pytest

SECRET = "not-a-real-secret-of-anybody"

needs_s3 = pytest.mark.skipif(
    find_spec("s3fs") is None or find_spec("moto") is None,
    reason="s3fs or moto is not installed (extras `s3`, `dev`)",
)


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Its URL. The environment leads to it, as to any S3, and the bucket is empty."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "squadron-tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with mock.patch.dict(os.environ, environment):
            files = s3fs.S3FileSystem(skip_instance_cache=True)
            # Buckets of one process outlive its servers.
            if files.exists(bucket):
                files.rm(bucket, recursive=True)
            files.mkdir(bucket)
            yield environment["AWS_ENDPOINT_URL"]
    finally:
        server.stop()
