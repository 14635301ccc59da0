"""A real S3 server over HTTP (moto's), in a process of its own. It takes any credentials."""

import itertools
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.mlflow_server import free_port

START_SECONDS = 60
_numbers = itertools.count()


@contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """The address of a server that is gone at the end, with all that it holds. `environment` is its, too."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True, env=os.environ | environment
    )
    end = time.monotonic() + START_SECONDS
    try:
        while not _answers(uri):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the S3 server did not start")
            time.sleep(0.05)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/moto-api/", timeout=2) as answer:  # noqa: S310  # our own server
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(frozen=True)
class Bucket:
    """A bucket, seen past our own code."""

    name: str
    uri: str
    client: Any
    """boto3's."""

    @staticmethod
    def new(endpoint: str) -> "Bucket":
        """An empty one."""
        import boto3

        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        client.create_bucket(Bucket=name)
        return Bucket(name, f"s3://{name}", client)

    def keys(self, prefix: str = "") -> list[str]:
        """Of all objects, a thousand at most."""
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", [])]

    def put(self, key: str, data: bytes) -> None:
        """Writes an object as another program would."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        """An object's content."""
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())
