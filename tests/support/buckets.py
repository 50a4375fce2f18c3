"""A bucket on a server of this process: S3 as moto imitates it, on the loopback interface."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "bucket"


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """A server with an empty bucket, while it is open.

    Yields:
        The environment variables by which obstore finds it. With them it asks no one else for
        credentials.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "NO_PROXY": host,
        }
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=environment["AWS_REGION"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.stop()


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let obstore find the bucket from this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
