"""URIs are read as they stand; what leads elsewhere is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.errors import DataError, UsageError
from tts.storage import is_remote, join
from tts.storage.place import Place, check_name

part = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: text not in (".", "..") and len(text.encode()) <= 255
)
key = st.lists(part, min_size=1, max_size=5).map("/".join)
bucket_name = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,60}[a-z0-9]", fullmatch=True)


@given(scheme=st.sampled_from(["s3", "minio", "S3", "MinIO"]), name=bucket_name, path=key, slashes=st.sampled_from(["", "/", "//"]))
def test_what_is_read_is_what_was_written(scheme, name, path, slashes):
    text = f"{scheme}://{name}/{path}{slashes}"
    place = Place.of(text)
    assert (place.scheme, place.bucket, place.key) == (scheme.lower(), name, path)
    assert Place.of(str(place)) == place
    assert is_remote(text)


@given(name=bucket_name, first=key, second=key)
def test_joining_is_associative_and_stays_below(name, first, second):
    for root in (f"s3://{name}", f"s3://{name}/", "/some/folder", "folder"):
        assert join(root, first, second) == join(join(root, first), second)
        if is_remote(root):
            assert Place.of(join(root, first)).key == first


@given(place=key)
def test_a_path_is_a_path(place):
    if ":/" not in place:
        assert not is_remote(place)


@pytest.mark.parametrize("name", ["..", "a/../b", "a//b", "/a", "a/", "./a", "a/.", "a\0b", ""])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(DataError, match="cannot be the name"):
        check_name(name, "here")
    for place in ("s3://bucket/x", "folder"):
        with pytest.raises(UsageError):
            join(place, name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gs://bucket/key", "gs://... is no place for files; expected a folder on this machine, s3://BUCKET/KEY or minio://BUCKET/KEY"),
        ("file:///etc", "file://... is no place for files"),
        ("s3:/bucket/key", "one slash too few"),
        ("s3:///key", "'' is no name of a bucket"),
        ("s3://bu cket/key", "'bu cket' is no name of a bucket"),
        ("s3://user:password@host/key", "is no name of a bucket"),
        ("s3://bucket/a/../../b", "cannot be the name"),
        ("s3://bucket//a", "cannot be the name"),
        ("s3://bucket/" + "a/" * 600 + "a", "S3 allows 1024"),
        ("s3://bucket/" + "a" * 300, "more than 255 bytes"),
        ("folder", "no place in an object store"),
    ],
)
def test_what_is_no_place_is_said(text, said):
    with pytest.raises(UsageError) as error:
        Place.of(text)
    assert said in str(error.value)
    assert error.value.exit_code == 64


def test_a_databases_url_given_by_mistake_is_not_shown():
    with pytest.raises(UsageError) as error:
        is_remote("postgresql://user:pass" + "word@host/db")
    assert "user" not in str(error.value)
    assert "word" not in str(error.value)
