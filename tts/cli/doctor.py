"""The command that tries what training needs."""

import json
from typing import TYPE_CHECKING, Annotated

import tyro

from tts.config import Config

if TYPE_CHECKING:
    from tts.doctor import Check


def doctor(
    *,
    config: Config,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print JSON.", help_behavior_hint="")] = False,
) -> None:
    """Try what training needs on this machine."""
    from tts.doctor import examine, failure

    checks = examine(config.tracking)
    _print_checks(checks, as_json=json)
    error = failure(checks)
    if error:
        raise error


def _print_checks(checks: "list[Check]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([check.as_dict() for check in checks], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("check", "works", "detail", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, "yes" if check.works else "NO" if check.needed else "no", check.detail)
    Console(soft_wrap=True).print(table)
