"""How validation scores are said in a line.

Rounded as in tables, with what changed since the last validation.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_modules.metrics.columns import COLUMNS, direction

ORDER = list(COLUMNS)


def headline(values: Mapping[str, float]) -> dict[str, float]:
    """Of the scores `val/...` of a validation those of the method's result, without the prefix.

    What the inputs and a method's parts reach (`psnr_input`, `psnr_xg`) stands in metrics.csv.
    """
    scores = {name.removeprefix("val/"): value for name, value in values.items()}
    own = [name for name in scores if not is_part(name)]
    known = [name for name in ORDER if name in own]
    others = [name for name in own if name not in ORDER]
    return {name: scores[name] for name in (*known, *others)}


def is_part(name: str) -> bool:
    return name not in COLUMNS and any(name.startswith(f"{score}_") for score in COLUMNS)


def say(name: str, value: float, before: float | None, better: str | None = None, short: bool = False) -> str:
    """A score, e.g. `psnr 23.41 (+0.42 better)`; `better` is `max` or `min` for those that no table knows."""
    digits = COLUMNS[name].digits if name in COLUMNS else 4
    text = f"{name} {value:.{digits}f}"
    if before is None:
        return text
    change = f"{value - before:+.{digits}f}"
    if not float(change):
        return text if short else f"{text} (same)"
    better = direction(name) or better
    if short or better is None:
        return f"{text} ({change})"
    rises = value > before
    verdict = "better" if rises == (better == "max") else "worse"
    return f"{text} ({change} {verdict})"
