import re

from hypothesis import given
from hypothesis import strategies as st

from tts.tuning.kubernetes.names import LONGEST, job_name, labels

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


@given(st.text(), st.text(max_size=20))
def test_any_study_has_a_name_that_kubernetes_takes_even_with_an_index_behind_it(study, database):
    name = job_name(study, database)

    assert LABEL.fullmatch(name)
    assert len(name) <= LONGEST
    assert len(f"{name}-9999999") <= 63
    assert all(len(value) <= 63 and LABEL_VALUE.fullmatch(value) for value in labels(name).values())


@given(st.text(), st.text())
def test_different_studies_have_different_jobs(one, other):
    assert (job_name(one, "tts-study/storage") == job_name(other, "tts-study/storage")) == (one == other)


def test_a_name_is_readable_and_always_the_same():
    assert job_name("My Voice (LJ)", "tts-study/storage") == "tts-my-voice-lj-377c6477"
    assert job_name("Stimme für Zoë", "tts-study/storage").startswith("tts-stimme-fur-zoe-")
    assert re.fullmatch("tts-[0-9a-f]{8}", job_name("голос", "tts-study/storage"))


def test_studies_of_one_name_in_two_databases_are_two():
    assert job_name("voices", "tts-study/storage") != job_name("voices", "tts-study/other")
