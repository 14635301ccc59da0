"""A wire before the object store."""

from collections.abc import Iterator

import pytest

from tests.s3_server import Bucket
from tests.storage.wire import Wire, wire


@pytest.fixture
def watched(bucket: Bucket, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Our requests pass through it; the bucket's own client goes past."""
    with wire(s3_endpoint) as seen:
        monkeypatch.setenv("AWS_ENDPOINT_URL", seen.uri)
        yield seen
