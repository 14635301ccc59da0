"""The policy reaches OpenMP: it is read by the library when torch loads it, so only a process of its own can show it."""

import os
import subprocess
import sys

import pytest

SHOW = "from tts.threads import wait_passively; wait_passively(); import torch"


@pytest.mark.parametrize(("given", "seen"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_openmp_sees_the_policy(given, seen):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given | {"OMP_DISPLAY_ENV": "true"}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert f"OMP_WAIT_POLICY = '{seen}'" in done.stderr
