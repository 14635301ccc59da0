"""What a store or the way to it refuses, in one line and with its exit code; keys are told to nobody."""

import json
import logging
import os

import boto3
import pytest

from tests.mlflow_server import free_port
from tests.s3_server import s3_server
from tests.storage.trees import write
from tts.errors import CannotWriteError, DataError, ServiceUnavailableError, UsageError
from tts.storage import exists, fetch, publish, read_bytes, write_bytes
from tts.storage.place import Place
from tts.storage.s3 import Settings, client

ACT = {
    "read": lambda place, _: read_bytes(f"{place}/a"),
    "write": lambda place, _: write_bytes(f"{place}/a", b"1"),
    "exists": lambda place, _: exists(place),
    "fetch": lambda place, folder: fetch(place, folder / "out"),
    "publish": lambda place, folder: publish(write(folder / "in", {"a": b"1"}), place),
}


@pytest.fixture(scope="module")
def strict_server():
    """A server that knows who may do what."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="5") as uri:
        given = {"endpoint_url": uri, "region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        people = boto3.client("iam", **given)
        boto3.client("s3", **given).create_bucket(Bucket="strict")
        people.create_user(UserName="reader")
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}]}
        people.put_user_policy(UserName="reader", PolicyName="reading", PolicyDocument=json.dumps(document))
        key = people.create_access_key(UserName="reader")["AccessKey"]
        boto3.client("s3", **given).put_object(Bucket="strict", Key="p/a", Body=b"1")
        with pytest.raises(Exception, match=r"403|InvalidAccessKeyId"):
            boto3.client("s3", **given).list_buckets()
        yield uri, key["AccessKeyId"], key["SecretAccessKey"]


@pytest.fixture
def strict(strict_server, bucket, monkeypatch):
    uri, access, secret = strict_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", uri)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    return uri


@pytest.mark.parametrize("act", sorted(ACT))
@pytest.mark.parametrize(("name", "value"), [("AWS_ACCESS_KEY_ID", "nobodys-key"), ("AWS_SECRET_ACCESS_KEY", "wrong-secret")])
def test_wrong_keys(strict, monkeypatch, tmp_path, act, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as error:
        ACT[act]("s3://strict/p", tmp_path)
    said = str(error.value)
    assert f"object store {strict} denies access (" in said
    assert "with credentials from AWS_ACCESS_KEY_ID in the environment" in said
    assert "wrong-secret" not in said
    assert "nobodys-key" not in said
    assert error.value.exit_code == 64


def test_one_who_may_only_read(strict, tmp_path):
    assert (fetch("s3://strict/p", tmp_path / "out") / "a").read_bytes() == b"1"
    for act in ("write", "publish"):
        with pytest.raises(UsageError, match=r"denies access .*; check them, and what they may do"):
            ACT[act]("s3://strict/p", tmp_path)
    assert (fetch("s3://strict/p", tmp_path / "out") / "a").read_bytes() == b"1"


def test_a_mounted_secret(strict, monkeypatch, tmp_path):
    access, secret = (boto3.Session().get_credentials().access_key, boto3.Session().get_credentials().secret_key)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    folder = tmp_path / "secret"
    monkeypatch.setenv("TTS_S3_SECRET_DIR", str(folder))
    with pytest.raises(UsageError, match=r"TTS_S3_SECRET_DIR names .*/secret, which has no file accesskey"):
        read_bytes("s3://strict/p/a")
    write(folder, {"accesskey": access.encode() + b"\n", "secretkey": secret.encode() + b"\n", "endpoint": strict.encode() + b"\n"})
    assert read_bytes("s3://strict/p/a") == b"1"
    assert read_bytes("minio://strict/p/a") == b"1"
    write(folder, {"secretkey": b"changed"})
    with pytest.raises(UsageError, match=r"with credentials from the files in .*/secret \(TTS_S3_SECRET_DIR\)"):
        read_bytes("s3://strict/p/a")
    (folder / "secretkey").unlink()
    with pytest.raises(UsageError, match="has no file secretkey"):
        read_bytes("s3://strict/p/a")


@pytest.mark.parametrize("act", sorted(ACT))
def test_nobody_there(bucket, monkeypatch, tmp_path, act):
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", uri)
    with pytest.raises(ServiceUnavailableError) as error:
        ACT[act](f"{bucket.uri}/p", tmp_path)
    assert f"object store {uri} (bucket {bucket.name}) is out of reach after retries" in str(error.value)
    assert error.value.exit_code == 69


@pytest.mark.parametrize("act", sorted(ACT))
def test_a_bucket_that_does_not_exist(bucket, tmp_path, act):
    with pytest.raises(DataError, match="bucket no-such-bucket does not exist in object store"):
        ACT[act]("s3://no-such-bucket/p", tmp_path)


def test_minio_needs_an_endpoint(bucket, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(UsageError, match="minio://b/k names a store of its own, but no endpoint: set AWS_ENDPOINT_URL"):
        read_bytes("minio://b/k")


@pytest.mark.parametrize("uri", ["127.0.0.1:9000", "ftp://host", "http://", "http://user:word@host:9000"])
def test_an_endpoint_that_is_none(bucket, monkeypatch, uri):
    monkeypatch.setenv("AWS_ENDPOINT_URL", uri)
    with pytest.raises(UsageError, match="endpoint") as error:
        read_bytes(f"{bucket.uri}/k")
    assert "word" not in str(error.value)


def test_half_of_the_credentials(bucket, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both"):
        read_bytes(f"{bucket.uri}/k")


def test_no_credentials(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a mounted"):
        read_bytes(f"{bucket.uri}/k")


def test_boto3s_own_files_serve_too(strict_server, bucket, monkeypatch, tmp_path):
    uri, access, _ = strict_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", uri)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = wrong\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(UsageError, match="with credentials from boto3's shared-credentials-file"):
        read_bytes("s3://strict/p/a")


def _answer(status, code, message="told"):
    return lambda _: (status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (507, "XMinioStorageFull", CannotWriteError, "is full (XMinioStorageFull: told); free space there"),
        (507, "InsufficientStorage", CannotWriteError, "is full"),
        (403, "QuotaExceeded", CannotWriteError, "is full"),
        (403, "AccessDenied", UsageError, "denies access (AccessDenied: told)"),
        (403, "RequestTimeTooSkewed", UsageError, "set the clock"),
        (400, "AuthorizationHeaderMalformed", UsageError, "in another region"),
        (503, "SlowDown", ServiceUnavailableError, "does not serve after retries: SlowDown: told"),
        (500, "InternalError", ServiceUnavailableError, "does not serve after retries"),
        (502, "", ServiceUnavailableError, "does not serve after retries"),
        (405, "MethodNotAllowed", UsageError, "refuses PutObject: MethodNotAllowed: told"),
    ],
)
def test_each_answer_has_its_error(bucket, watched, status, code, kind, said):
    watched.answer = _answer(status, code)
    with pytest.raises(kind) as error:
        write_bytes(f"{bucket.uri}/k", b"1")
    assert type(error.value) is kind
    assert said in str(error.value)
    assert watched.uri in str(error.value)


def test_a_store_that_is_busy_for_a_moment_is_asked_again(bucket, watched, monkeypatch):
    answers = [503, 503]
    watched.answer = lambda request: _answer(answers.pop(), "SlowDown")(request) if answers else None
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    write_bytes(f"{bucket.uri}/k", b"1")
    assert bucket.get("k") == b"1"
    assert len(watched.requests) == 3


def test_keys_are_shown_nowhere(bucket, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, logger="tts")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hidden-token")
    write_bytes(f"{bucket.uri}/k", b"1")
    for text in (repr(Settings.of(os.environ)), caplog.text):
        assert "hidden" not in text
        assert "key-of-the-tests" not in text


def test_how_buckets_are_addressed(bucket, monkeypatch):
    """In the path where there is an endpoint, in the host's name at Amazon's."""
    with_endpoint = client(Place.of("minio://bucket/key")).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert "/bucket/key?" in with_endpoint
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "//bucket.s3." in client(Place.of("s3://bucket/key")).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert "eu-central-1" in client(Place.of("s3://bucket/key")).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
