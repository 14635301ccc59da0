"""How torch's CPU threads wait for each other."""

import os


def wait_passively() -> None:
    """Lets threads that wait at a barrier sleep, for this process and its children; a policy that is set already stays.

    By default they spin, and where something else wants the core as well, all threads wait for the one that spins without a core: beside
    one busy process on two cores an update of the demo preset took 2.6 s, with this 0.37 s. For a process's edge, before torch is loaded:
    OpenMP reads the policy once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
