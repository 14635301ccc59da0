"""How torch's CPU threads wait for each other."""

import os

SPINS = 2000


def wait_patiently() -> None:
    """Lets threads that wait at a barrier sleep soon, for this process and its children; what the environment says already stays.

    By default libgomp's threads spin 300,000 times, and where something else wants the core as well, all wait for the one that spins without a
    core. An update of the demo preset by two threads on two cores, in ms, alone / beside one busy process: 300,000 spins 148 / 2,620; 2,000
    spins 158 / 610; OMP_WAIT_POLICY=PASSIVE, which never spins, 340 / 370. For a process's edge, before torch is loaded: OpenMP reads it once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
