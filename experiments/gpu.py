"""What wants a GPU, in 12 minutes and one report: python -m experiments.gpu [--output DIR] [--smoke].

The tests marked `gpu`, a short training of every method with its validations, some in half precision or
compiled, one on two devices where there are two, inversions by the methods that are not trained, and the
speed of StyleGAN2. Each is a command of its own
with its own time limit: one that fails or hangs does not end the others. DIR/report.md says what passed, how
fast it was and what it held in memory, and the last lines of what failed; DIR/logs has all output. The exit
status is 1 if anything failed.
"""

from __future__ import annotations

import contextlib
import csv
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo

from _runtime import UserError, remove_file, write_text
from experiments.shared import console
from experiments.shared.options import command_parser, parse
from experiments.shared.outputs import make_folder
from experiments.shared.recipes import METHODS, recipe
from experiments.shared.tables import Table

MINUTES = 11.5  # for all steps; what is left of it limits the last ones
TAIL = 15  # lines shown of what failed
COLUMNS = {"result": (0, ""), "s": (0, ""), "images/s": (1, ""), "GiB": (2, "")}

TRAINING = (
    *("--preset", "demo", "--iterations", "200", "--validate_every", "100", "--log_every", "50"),
    *("--data.val_images", "64", "--data.workers", "4"),
)
SMOKE = ("--preset", "smoke")
FIRST = ("gan_prior", "parser")  # which others start from
INVERTED = "4"  # images of the methods that are not trained


@dataclass(frozen=True)
class Step:
    """A command, without the interpreter.

    Attributes:
        limit: seconds it may take.
        run: folder of a training, whose speed and memory the report takes.
        table: whether its output is a table for the report.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    run: Path | None = None
    table: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a step: `passed`, `failed (STATUS)`, `timed out` or `not run`."""

    step: Step
    result: str
    seconds: float = 0.0
    output: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps and write the report. Returns the exit status."""
    parser = command_parser("gpu", __doc__)
    smoke_help = "few iterations, 32 px, no compiling"
    python_help = "what runs `-m MODULE`; this interpreter if not given"
    parser.add_argument("--output", type=str, default="runs/gpu", help="folder of report, logs and trainings")
    parser.add_argument("--smoke", action=ActionYesNo, default=False, help=smoke_help)
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace an earlier report")
    parser.add_argument("--python", type=str | None, help=python_help)
    config = parse(parser, argv)
    import torch

    output = Path(config.output)
    if not torch.cuda.is_available():
        cuda = torch.version.cuda
        built = "built without CUDA" if cuda is None else f"built for CUDA {cuda}"
        raise UserError(f"no GPU found by torch {torch.__version__}, {built}: there is nothing to check here")
    if (output / "report.md").exists() and not config.overwrite:
        raise UserError(f"--output {output} has a report: give --overwrite or another --output")

    python = [sys.executable]
    if config.python:
        python = shlex.split(config.python)
    todo = list(steps(output / "trainings", config.smoke, torch.cuda.device_count()))
    outcomes = run_all(todo, python, output / "logs", MINUTES * 60)
    write_text(output / "report.md", report(outcomes, machine()))
    failed = [outcome.step.name for outcome in outcomes if outcome.result != "passed"]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} passed; {output / 'report.md'}")
    if not failed:
        return 0
    print(f"not: {', '.join(failed)}")
    return 1


def steps(runs: Path, smoke: bool, devices: int) -> Iterator[Step]:
    """All that is done; what later steps start from comes first."""
    yield Step("tests", ("-m", "pytest", "-q", "-m", "gpu", "tests"), 120)
    short = SMOKE if smoke else TRAINING

    def training(name: str, method: str, *options: str, limit: float = 90) -> Step:
        run = runs / as_file(name)
        where = ("--run_dir", str(run), "--overwrite")
        command = ("-m", "experiments.fit", "--method", method, *short, *where, *options)
        return Step(name, command, limit, run)

    def last(name: str) -> str:
        return str(runs / name / "checkpoints" / "last.ckpt")

    # added noise, on which the others are built; the compiled one below has it concatenated
    on_prior = ("--model.prior", last("gan_prior"))
    special: dict[str, tuple[str, ...]] = {
        "gan_prior": ("--model.augment", "ada", "--model.noise", "add"),
        "bdinvert": on_prior,
        "hfgi": ("--model.base", last("e4e")),
        "hfgi_sf": ("--model.hfgi", last("hfgi"), "--model.parser", last("parser")),
        "idinvert": on_prior,
        "stylefusion": (*on_prior, "--model.parser", last("parser")),
    }
    untrained = [method for method in METHODS if not recipe(method, "smoke")["iterations"]]
    for method in sorted(METHODS, key=lambda name: name not in FIRST):
        if method not in untrained:
            yield training(method, method, *from_scratch(method), *special.get(method, ()))
    stylegan1 = ("--model.family", "stylegan1", "--model.noise", "add", "--model.path_length", "0")
    yield training("gan_prior, stylegan1", "gan_prior", *stylegan1)
    for method in untrained:
        where = ("--run_dir", str(runs / method), "--overwrite", "--iterations", "0")
        preset = ("--preset", "smoke" if smoke else "demo")
        yield Step(method, ("-m", "experiments.fit", "--method", method, *preset, *where, *on_prior), 60)
        score = ("--checkpoint", last(method), "--data.val_images", INVERTED, "--overwrite")
        yield Step(f"{method}, inversion", ("-m", "experiments.evaluate", *score), 120, table=True)
    stage1 = last("gan_prior_restoration")
    yield training("stage 2", "gan_prior_restoration", "--model.stage", "2", "--model.stage1", stage1)
    yield training("gpen, bf16", "gpen", "--trainer.precision", "bf16-mixed")
    yield training("e4e, bf16", "e4e", *from_scratch("e4e"), "--trainer.precision", "bf16-mixed")
    yield training("nafnet, fp16", "nafnet", "--trainer.precision", "16-mixed")
    if devices > 1:
        yield training("gpen, two devices", "gpen", "--trainer.devices", "2")

    def generation(name: str, sizes: Sequence[int], *options: str, limit: float) -> Step:
        command = ("-m", "experiments.benchmark", "generation", "--sizes", str(list(sizes)), *options)
        return Step(name, command, limit, table=True)

    if smoke:
        yield generation("StyleGAN2", [128], "--repeats", "1", limit=60)
        return
    yield generation("StyleGAN2", [128, 256, 512], limit=60)
    for size in (128, 256, 512):
        yield generation(f"StyleGAN2 {size}, compiled", [size], "--repeats", "3", "--compile", limit=120)
    yield training("gan_prior, compiled", "gan_prior", "--model.noise", "concat", "--compile", limit=180)


def from_scratch(method: str) -> tuple[str, ...]:
    """What lets a method begin without a trained prior, as its smoke preset does: faces are not the point."""
    if recipe(method, "smoke").get("model.prior") == "scratch":
        return "--model.prior", "scratch"
    return ()


def as_file(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def run_all(todo: Sequence[Step], python: Sequence[str], logs: Path, seconds: float) -> list[Outcome]:
    """One step after the other, and a line about each; together they end within `seconds`."""
    make_folder(logs)
    for step in todo:
        if step.run is not None:  # what an earlier call left is no speed of this one
            remove_file(step.run / "metrics.csv")
    end = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    for number, step in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {step.name}", end=" ", flush=True)
        log = logs / f"{number:02d}-{as_file(step.name)}.txt"
        left = end - time.monotonic()
        outcome = perform(step, python, log, min(step.limit, left))
        print(f"{outcome.result}, {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    return outcomes


def perform(step: Step, python: Sequence[str], log: Path, limit: float) -> Outcome:
    """Run one step, at most `limit` seconds; its output goes to `log`."""
    if limit <= 0:
        return Outcome(step, "not run")
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as file:
        # a session of its own, so that whatever it started ends with it
        streams: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([*python, *step.command], **streams, start_new_session=True)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            result = "timed out"
        else:
            result = "passed" if status == 0 else f"failed ({status})"
        finally:
            end_session(process)
    return Outcome(step, result, time.monotonic() - start, log.read_text(encoding="utf-8", errors="replace"))


def end_session(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it started."""
    if sys.platform == "win32":  # which has no sessions
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):  # where nothing is left
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> list[str]:
    """Lines about where this was."""
    import lightning as L
    import torch

    device = torch.cuda.get_device_properties(0)
    return [
        f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / 2**30:.0f} GiB",
        f"{os.cpu_count()} processor cores, {platform.platform()}",
        f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}, Lightning {L.__version__}",
        time.strftime("%Y-%m-%d %H:%M"),
    ]


def report(outcomes: Sequence[Outcome], about: Sequence[str]) -> str:
    """The report as Markdown: a table of the steps, the benchmarks' tables, the last lines of what failed."""
    rows: list[tuple[str, dict[str, float | str]]] = []
    for outcome in outcomes:
        measured = {"s": outcome.seconds, **speed(outcome.step.run)}
        rows.append((outcome.step.name, {"result": outcome.result, **measured}))
    total = sum(outcome.seconds for outcome in outcomes)
    passed = sum(outcome.result == "passed" for outcome in outcomes)
    counted = f"{passed} of {len(outcomes)} passed, {total / 60:.1f} minutes"
    notes = [counted, "images/s: median of a training's rows"]
    parts = ["# On a GPU", *about, Table(COLUMNS, rows, footnote=notes).markdown()]
    for outcome in outcomes:
        parts += details(outcome)
    return "\n\n".join(parts) + "\n"


def details(outcome: Outcome) -> list[str]:
    """What the report shows of a step's output: the last lines of what failed, a benchmark's table."""
    step = outcome.step
    if outcome.result != "passed":
        tail = "\n".join(outcome.output.splitlines()[-TAIL:])
        return [f"## {step.name}: {outcome.result}", f"`{shlex.join(step.command)}`", f"```\n{tail}\n```"]
    if step.table:
        return [f"## {step.name}", f"```\n{outcome.output.rstrip()}\n```"]
    return []


def speed(run: Path | None) -> dict[str, float]:
    """Median images per second, and peak memory, of a training as far as it came."""
    if run is None or not (run / "metrics.csv").exists():
        return {}
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("perf/images_per_second")]
    if not rows:
        return {}
    speeds = [float(row["perf/images_per_second"]) for row in rows]
    memory = max(float(row["perf/peak_memory_gib"]) for row in rows)
    return {"images/s": statistics.median(speeds), "GiB": memory}


if __name__ == "__main__":
    console.run(main)
