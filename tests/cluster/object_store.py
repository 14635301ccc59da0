"""The S3 server that tests share with the pods: whichever TTS_TEST_S3_ENDPOINT names, else the one beside the cluster."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.cluster.cluster import Control, absent


@dataclass(frozen=True)
class ObjectStore:
    """A bucket of the test's own, and how pods and this process reach it. `endpoint` is one address for both."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    bucket: str = ""

    @property
    def uri(self) -> str:
        """The bucket."""
        return f"s3://{self.bucket}"

    def environment(self) -> dict[str, str]:
        """What a process needs."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def secret(self, name: str = "tts-object-store") -> dict[str, Any]:
        """The Secret that the manifests expect."""
        data = {"accesskey": self.access_key, "secretkey": self.secret_key, "endpoint": self.endpoint, "region": self.region}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}

    def client(self) -> Any:
        """boto3's client of the server."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=self.region,
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key,
        )  # fmt: skip

    def objects(self, prefix: str = "") -> list[str]:
        """The names of the bucket's objects."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    @contextmanager
    def own_bucket(self, name: str = "") -> Iterator["ObjectStore"]:
        """A new bucket, emptied and removed at the end."""
        own = ObjectStore(self.endpoint, self.access_key, self.secret_key, self.region, name or f"tts-test-{uuid4().hex[:12]}")
        client = self.client()
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):  # a session that was killed left it
            client.create_bucket(Bucket=own.bucket)
        try:
            yield own
        finally:
            for key in own.objects():
                client.delete_object(Bucket=own.bucket, Key=key)
            client.delete_bucket(Bucket=own.bucket)


def server(control: Control | None) -> ObjectStore:
    """The server, without a bucket. Without one the test is skipped, or with CI=true fails."""
    environment = os.environ
    endpoint = environment.get("TTS_TEST_S3_ENDPOINT")
    if endpoint is None and control is not None:
        told = control.do("s3", seconds=600)
        found = re.search(r"http://[0-9.]+:\d+", told)
        assert found, f"no address of the S3 server in: {told}"
        endpoint = found[0]
    if endpoint is None:
        absent("no S3 server: TTS_TEST_S3_ENDPOINT names none, and TTS_CLUSTER_CONTROL no program that starts one")
    return ObjectStore(
        endpoint,
        environment.get("TTS_TEST_S3_ACCESS_KEY", "test"),
        environment.get("TTS_TEST_S3_SECRET_KEY", "testsecret"),
        environment.get("TTS_TEST_S3_REGION", "us-east-1"),
    )
