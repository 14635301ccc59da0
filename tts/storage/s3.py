"""The way to the object store: credentials, endpoint, limits, and what its refusals mean. The one module that makes a client."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, TtsError, UsageError
from tts.storage.place import Place

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

SECRET_DIR = "TTS_S3_SECRET_DIR"  # noqa: S105  # the name of a variable
"""Environment variable that names a mounted secret: files accesskey and secretkey, and where they are needed endpoint and region."""
WORKERS = 8
"""Requests at a time."""
ATTEMPTS = 5
"""For one request, with pauses of up to 20 s between them; AWS_MAX_ATTEMPTS in the environment goes before."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
MISSING = ("NoSuchKey", "404", "NotFound")
"""Codes of a missing object."""
CHANGED = ("PreconditionFailed", "412", "InvalidRange", "416")
"""Codes of an object that is not the one which was asked for any more."""
_REFUSALS: tuple[tuple[tuple[str, ...], type[TtsError], str], ...] = (
    (("NoSuchBucket",), DataError, "bucket {bucket} does not exist in {where}; make it, or name another one"),
    (MISSING, DataError, "{place} does not exist in {where}"),
    (CHANGED, DataError, "{place} in {where} changed while it was read; try again"),
    (
        ("XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "507"),
        CannotWriteError,
        "cannot write {place}: {where} is full ({said}); free space there or choose another place",
    ),
    (
        ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        UsageError,
        "{place}: {where} serves this bucket in another region ({said}); set AWS_REGION",
    ),
    (("RequestTimeTooSkewed",), UsageError, "{place}: the clocks of this machine and of {where} differ too much ({said}); set the clock"),
    (
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "401", "403"),
        UsageError,
        "{place}: {where} denies access ({said}) with credentials from {source}; check them, and what they may do",
    ),
    (
        ("SlowDown", "Throttling", "RequestTimeout", "TooManyRequests", "429", "500", "502", "503", "504"),
        ServiceUnavailableError,
        "{where}{in_bucket} does not serve after retries: {said}",
    ),
    ((), UsageError, "{place}: {where} refuses {operation}: {said}"),
)
"""Codes or HTTP statuses, what they become, and what is said; the first that fits, and the last for all others."""


@dataclass(frozen=True)
class Settings:
    """How the store is reached. Keys are shown nowhere, not even by `repr`."""

    endpoint: str
    """Empty: Amazon's own, or what boto3's configuration says."""
    region: str
    access: str = field(repr=False)
    """Empty: boto3 finds credentials where it usually does."""
    secret: str = field(repr=False)
    token: str = field(repr=False)
    source: str
    """Where the credentials came from, for messages."""
    limited: bool
    """Whether ATTEMPTS holds."""
    process: int
    """Connections are not shared with a process that was forked."""

    @staticmethod
    def of(environment: "os._Environ[str]") -> "Settings":
        """From the mounted secret, where one is named, else from AWS_* variables. Raises UsageError."""
        folder = environment.get(SECRET_DIR)
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
        access, secret, token = (environment.get(f"AWS_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
        source = "AWS_ACCESS_KEY_ID in the environment" if access else ""
        if folder:
            access, secret = (_secret(Path(folder), name) for name in ("accesskey", "secretkey"))
            endpoint = _secret(Path(folder), "endpoint", needed=False) or endpoint
            region = _secret(Path(folder), "region", needed=False) or region
            token, source = "", f"the files in {folder} ({SECRET_DIR})"
        elif bool(access) != bool(secret):
            given, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if access else -1]
            raise UsageError(f"{given} is set and {missing} is not; set both, or name a mounted secret in {SECRET_DIR}")
        if endpoint and not re.fullmatch(r"https?://[^@\s]+", endpoint):
            shown = re.sub(r".*@", "...@", endpoint)
            raise UsageError(f"the object store's endpoint must be http://HOST:PORT or https://..., without a user, got {shown!r}")
        return Settings(endpoint, region, access, secret, token, source, "AWS_MAX_ATTEMPTS" not in environment, os.getpid())


def _secret(folder: Path, name: str, *, needed: bool = True) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if needed:
            raise UsageError(
                f"{SECRET_DIR} names {folder}, which has no file {name}; mount the secret there, with files accesskey and secretkey"
            ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{folder / name} cannot be read ({error}); see {SECRET_DIR}") from None
    return ""


def client(place: Place) -> "S3Client":
    """The client for a place, made once for a process and its environment; its methods may be called from several threads. Raises UsageError."""
    settings = Settings.of(os.environ)
    if place.scheme == "minio" and not settings.endpoint:
        raise UsageError(f"{place} names a store of its own, but no endpoint: set AWS_ENDPOINT_URL, such as http://minio.example:9000")
    return _client(settings)


@lru_cache(maxsize=4)
def _client(settings: Settings) -> "S3Client":
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    options: Any = {"mode": "standard"} | ({"total_max_attempts": ATTEMPTS} if settings.limited else {})
    config = Config(
        retries=options,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=2 * WORKERS,
        # Stores other than Amazon's refuse the trailing checksums of newer clients; SHA-256 is checked against our manifest.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # A bucket as a part of the host's name needs DNS that a store in a cluster does not have.
        s3={"addressing_style": "path" if settings.endpoint else "auto"},
    )
    try:
        session = boto3.Session(region_name=settings.region or None)
        return session.client(
            "s3",
            endpoint_url=settings.endpoint or None,
            region_name=settings.region or session.region_name or "us-east-1",
            aws_access_key_id=settings.access or None,
            aws_secret_access_key=settings.secret or None,
            aws_session_token=settings.token or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"the object store cannot be asked: {_text(error)}") from None


def is_named() -> bool:
    """Whether the environment names an object store, or credentials of one."""
    return any(os.environ.get(name) for name in (SECRET_DIR, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"))


def greet() -> str:
    """What the object store answers to these credentials, in a few words. Raises UsageError, ServiceUnavailableError."""
    from botocore.exceptions import ClientError

    nowhere = Place("s3", "", "")
    with asking(nowhere):
        try:
            number = len(client(nowhere).list_buckets()["Buckets"])
        except ClientError as error:
            if code_of(error) != "AccessDenied":  # of somebody who is known, and may use buckets without listing them
                raise
            return f"{_endpoint()} answers; it lists its buckets to others only"
    return f"{_endpoint()} answers; {number} buckets"


@contextmanager
def asking(place: Place) -> Iterator[None]:
    """Turns what the store or the way to it answers into our errors: 69 out of reach, 65 not there, 64 denied, 73 full."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise refusal(error, place) from error
    except BotoCoreError as error:
        raise _unreached(error, place) from error


def code_of(error: "ClientError") -> str:
    """What S3 calls the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def refusal(error: "ClientError", place: Place) -> TtsError:
    """Our error for an answer of the store."""
    code, status = code_of(error), str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    kind, text = next((kind, text) for codes, kind, text in _REFUSALS if not codes or code in codes or status in codes)
    return kind(
        text.format(
            bucket=place.bucket,
            in_bucket=_in_bucket(place),
            place=place,
            where=f"object store {_endpoint()}",
            said=f"{code}: {message}" if message else code,
            source=_source() if "{source}" in text else "",
            operation=error.operation_name,
        )
    )


def _unreached(error: Exception, place: Place) -> TtsError:
    from botocore import exceptions as boto

    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.ProfileNotFound)):
        return UsageError(
            f"{place}: no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a mounted secret in {SECRET_DIR}"
            f" ({_text(error)})"
        )
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)):
        return ServiceUnavailableError(f"object store {_endpoint()}{_in_bucket(place)} is out of reach after retries: {_text(error)}")
    return UsageError(f"{place}: the object store {_endpoint()} cannot be asked: {_text(error)}")


def _in_bucket(place: Place) -> str:
    return f" (bucket {place.bucket})" if place.bucket else ""


def _endpoint() -> str:
    return str(_client(Settings.of(os.environ)).meta.endpoint_url)


def _source() -> str:
    import boto3

    known = Settings.of(os.environ).source
    found = None if known else boto3.Session().get_credentials()
    return known or (f"boto3's {found.method}" if found else "nowhere")


def _text(error: Exception) -> str:
    return " ".join(str(error).split())
