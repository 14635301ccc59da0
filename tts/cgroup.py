"""Where the kernel says what a container may take: control groups, of version 2 or 1."""

from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups(controller: str, cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> list[Path]:
    """The groups whose limits hold for this process, its own first, up to the one that is mounted; empty where none is mounted.

    A limit of any of them counts. The path that the kernel gives begins at the host's root or at the container's, and what is mounted may be
    either: the longest end of the path that exists below the mount is taken, and the mount itself where none does.
    """
    mount = _mount(controller, cgroup)
    if not mount.is_dir():
        return []
    parts = _own(controller, membership, unified=mount.name != controller)
    ends = [mount.joinpath(*parts[first:]) for first in range(len(parts))] if ".." not in parts else []
    own = next((folder for folder in ends if folder.is_dir()), mount)
    return [own, *(folder for folder in own.parents if folder.is_relative_to(mount))]


def _mount(controller: str, cgroup: Path) -> Path:
    """Version 1 mounts each controller in a folder of its own; where both are there, version 2 is in `unified`."""
    if not (cgroup / "cgroup.controllers").is_file():
        for name in (controller, "unified"):
            if (cgroup / name).is_dir():
                return cgroup / name
    return cgroup


def _own(controller: str, membership: Path, *, unified: bool) -> tuple[str, ...]:
    """Names on the way from the root to this process's group."""
    if not membership.is_file():
        return ()
    for line in membership.read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if (number == "0" and not controllers) if unified else controller in controllers.split(","):
            return PurePosixPath(path).parts[1:]
    return ()
