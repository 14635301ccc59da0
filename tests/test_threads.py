"""The setting reaches OpenMP: it is read by the library when torch loads it, so only a process of its own can show it."""

import os
import subprocess
import sys

import pytest

from tts.threads import SPINS

SHOW = "from tts.threads import wait_patiently; wait_patiently(); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings libgomp on Linux only")
@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, f"GOMP_SPINCOUNT = '{SPINS}'"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "GOMP_SPINCOUNT = '0'"),
    ],
)
def test_openmp_sees_the_number_of_spins(given, seen):
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = kept | given | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert seen in done.stderr
