import pytest

from tts.tuning.kubernetes.books import job_state


@pytest.mark.parametrize(
    ("status", "suspended", "worn"),
    [
        ({"active": 2}, False, False),
        ({"active": 1, "failed": 9}, False, False),  # it is at work
        ({"terminating": 1, "failed": 9}, False, False),  # the next one is about to be made
        ({"failed": 1}, False, False),
        ({"failed": 2}, False, True),
        ({"failed": 2}, True, False),  # a queue holds it
        ({"active": 1, "failed": 1, "failedIndexes": "0"}, False, True),
        ({}, False, False),
    ],
)
def test_a_job_is_worn_once_workers_are_lost_or_all_of_them_wait_after_failures(status, suspended, worn):
    spec = {"parallelism": 2, "completions": 2, "suspend": suspended}

    assert job_state({"metadata": {"uid": "1"}, "spec": spec, "status": status}).worn is worn
