"""The faults as a Markdown table: what stands in docs/recovery.md."""

from collections.abc import Iterator, Sequence

from tests.chaos.faults.fault import Fault


def table(faults: Sequence[Fault]) -> str:
    """One line for each."""
    rows = [("fault", "injected", "named", "end")]
    rows += [(fault.name, fault.injected, "; ".join(_named(fault)) or "-", fault.means) for fault in faults]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|---|", *lines[1:]]) + "\n"


def _named(fault: Fault) -> Iterator[str]:
    for name in sorted(fault.names):
        kind, _, what = name.partition(": ")
        yield f"{kind} `{what}`"
    yield from (f"finding `{code}`" for code in sorted(fault.finds))
    yield from (f"“{words.strip('*').replace('*', '…')}”" for words in fault.says)
