"""How the ranks of a training find each other: by the environment that torchrun sets, or by what a tuning worker told them."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil
import torch
import torch.distributed as dist

from tts.errors import ServiceUnavailableError, UsageError
from tts.training.precision import choose_device
from tts.training.ranks import Ranks

logger = logging.getLogger(__name__)

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class TooFewDevicesError(UsageError):
    """This machine has fewer CUDA devices than processes that are to train on it."""


@dataclass(frozen=True)
class Place:
    """A process's place among those that train one network."""

    rank: int
    count: int
    here: int
    """How many of them are on this machine."""
    device: int
    """Which of this machine's CUDA devices is its own, if it trains on one."""
    meeting: str
    """URL at which torch's process group forms: env://, or file:// and a path where nothing is yet."""


ALONE_PLACE = Place(rank=0, count=1, here=1, device=0, meeting="")


def place_from_environment(environment: Mapping[str, str] = os.environ) -> Place:
    """What torchrun says: RANK and WORLD_SIZE, and what counts on this machine. Without it, or for one process, alone. Raises UsageError."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE_PLACE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = [environment.get(name, environment[name.removeprefix("LOCAL_")]) for name in names]
    try:
        rank, count, device, here = map(int, given)
    except ValueError:
        count = rank = device = here = -1
    if not (0 <= rank < count and 0 <= device < here <= count):
        told = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        raise UsageError(f"the environment says {told}, which is no place among processes; start them by torchrun, or unset these variables")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if count > 1 and missing:
        raise UsageError(f"the environment says WORLD_SIZE={count} but not {' and '.join(missing)}; start the processes by torchrun")
    return Place(rank, count, here, device, "env://") if count > 1 else ALONE_PLACE


@contextmanager
def joined(place: Place, device_name: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Meets the others and leaves them, with a last word where rank 0 can say one.

    On CUDA the process's own device is the current one from then on. Raises TooFewDevicesError, and ServiceUnavailableError
    where the others did not come.
    """
    if place.count == 1:
        yield Ranks()
        return
    cuda = choose_device(device_name).type == "cuda"
    if cuda:
        take_device(place)
    elif place.rank == 0:
        logger.warning("%d processes train together on the CPU: good for a test, one process with more threads is faster", place.count)
    if place.here == place.count:
        _meet_on_loopback()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", init_method=place.meeting, rank=place.rank, world_size=place.count)
        ranks = Ranks(place.rank, place.count, here=place.here)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ServiceUnavailableError(f"rank {place.rank} did not find the other {place.count - 1} at {place.meeting} ({reason})") from error
    try:
        yield ranks
    finally:
        if ranks.leads:  # another rank that fails by itself has nothing to wait for
            ranks.end()
    dist.destroy_process_group()


def take_device(place: Place) -> None:
    """Makes the place's CUDA device the current one. Raises TooFewDevicesError."""
    found = torch.cuda.device_count()
    if place.here > found:
        raise TooFewDevicesError(
            f"{place.here} processes train here, one a device, but torch finds {found} CUDA devices; start {found}, or set training.device cpu"
        )
    torch.cuda.set_device(place.device)


def _meet_on_loopback() -> None:
    """Lets gloo connect within the machine: by default it takes the address of the host's name, which a container may not know."""
    if GLOO_INTERFACE not in os.environ:
        for name, addresses in psutil.net_if_addrs().items():
            if any(address.address == "127.0.0.1" for address in addresses):
                os.environ[GLOO_INTERFACE] = name
