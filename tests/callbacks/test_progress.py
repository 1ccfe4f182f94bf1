"""What a run shows: on terminals of different widths, and line by line where the output is a file."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from callbacks.progress import BAR, RunBar, fitted
from callbacks.scores import headline, say
from experiments.fit import main

ROOT = Path(__file__).parents[2]
OPTIONS = ["--method", "gpen", "--preset", "smoke", "--trainer.accelerator", "cpu", "--iterations", "12"]
INTERVALS = ["--validate_every", "5", "--log_every", "4", "--save_every", "100"]
COMMAND = [sys.executable, "-m", "experiments.fit", *OPTIONS, *INTERVALS]


def on_terminal(columns: int, run: Path) -> str:
    """Everything that a run writes on a terminal so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("COLUMNS", None)
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(
        [*COMMAND, "--run_dir", str(run)], **streams, cwd=ROOT, env=environment, start_new_session=True
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        written += block
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return written.decode()


def drawn(written: str) -> list[str]:
    """What was written on a line, each time one was, without what moves the cursor."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", written)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_no_line_wraps_at_80_columns_and_the_score_comes_first(tmp_path) -> None:
    lines = drawn(on_terminal(80, tmp_path / "run"))
    bars = [line for line in lines if line.startswith("GPEN ")]
    ours = [line for line in lines if line.startswith(("GPEN ", "validation ", "  ssim", "  lpips"))]
    assert bars
    assert max(len(line) for line in ours) <= 80
    last = bars[-1]
    assert re.match(r"GPEN 12/12 \|.+\| 00:\d\d<00:00, psnr \d+\.\d\d \([+-]\d\.\d\d\), [\d.]+ img/s", last)
    assert "validation 0/6 images |" in "\n".join(lines)
    said = re.findall(r"validation at (\d+): psnr", "\n".join(lines))
    assert said == ["5", "10", "12"]


def test_a_file_gets_one_line_for_each_row_of_the_log(tmp_path) -> None:
    run = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "40"}  # of no file
    done = subprocess.run(
        [*COMMAND, "--run_dir", str(run)],
        check=True,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert not set(done.stderr) & {"\r", "\x1b", "\N{NO-BREAK SPACE}"}
    lines = [line.partition(" ") for line in done.stderr.splitlines()]
    shown = [
        int(re.match(r"(?:at )?(\d+)", rest)[1]) for name, _, rest in lines if name in ("GPEN", "validation")
    ]
    with open(run / "metrics.csv", newline="") as file:
        assert shown == [int(row["iteration"]) for row in csv.DictReader(file)]
    first, second = (
        line for line in done.stderr.splitlines() if line.startswith("validation at ") and " 12:" not in line
    )
    assert "better" not in first
    assert re.search(r"psnr [\d.]+ \([+-][\d.]+ (better|worse)\)", second)
    assert re.search(
        r"GPEN 12/12 100% 00:\d\d<00:\d\d, psnr [\d.]+ \([+-][\d.]+\), [\d.]+ img/s, l1 .*GiB", done.stderr
    )


def test_a_resumed_run_knows_the_validation_before(tmp_path, capsys) -> None:
    options = [*OPTIONS[:-1], "5", *INTERVALS, "--run_dir", str(tmp_path / "run")]
    main(options)
    capsys.readouterr()
    main([*options, "--iterations", "10", "--resume", "auto"])
    assert re.search(r"validation at 10: psnr [\d.]+ \([+-]", capsys.readouterr().err)


@pytest.mark.processes
def test_one_process_speaks_for_all(tmp_path) -> None:
    command = [*COMMAND, "--trainer.devices", "2", "--run_dir", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stderr.count("validation at 5: ") == 1
    assert done.stderr.count("GPEN 4/12 ") == 1


def test_only_whole_items_are_shown() -> None:
    items = ["psnr 23.41", "5.0 img/s", "l1 0.1"]
    assert fitted(items, None) == ", psnr 23.41, 5.0 img/s, l1 0.1"
    assert fitted(items, len(", psnr 23.41, 5.0 img/s")) == ", psnr 23.41, 5.0 img/s"
    assert fitted(items, len(", psnr 23.41, 5.0 img/s") - 1) == ", psnr 23.41"
    assert fitted(items, 3) == ""


@pytest.mark.parametrize("columns", [60, 80, 90, 120, 200])
def test_a_bar_is_as_wide_as_the_terminal(columns: int) -> None:
    bar = RunBar(
        total=400_000,
        initial=123_456,
        desc="GANPriorRestoration",
        file=io.StringIO(),
        ncols=columns,
        bar_format=RunBar.FORMAT,
    )
    bar.left, bar.items = 3 * 86_400.0, ["psnr 23.41 (+0.12)", "123.4 img/s", "l1 0.123", "contextual 12.3"]
    assert len(str(bar)) == columns
    assert len(str(bar).split("|")[1]) >= BAR
    assert ("psnr" in str(bar)) == (columns > 60)
    assert ("contextual" in str(bar)) == (columns >= 120)
    bar.close()


def test_scores_say_whether_they_became_better() -> None:
    assert say("psnr", 23.414, 23.0) == "psnr 23.41 (+0.41 better)"
    assert say("psnr", 23.0, 23.414) == "psnr 23.00 (-0.41 worse)"
    assert say("fid", 3.0, 4.0) == "fid 3.00 (-1.00 better)"
    assert say("lpips_random", 0.5, 0.25) == "lpips_random 0.5000 (+0.2500 worse)"
    assert say("psnr", 23.0, 23.001) == "psnr 23.00 (same)"
    assert say("psnr", 23.0, None) == "psnr 23.00"
    assert say("improved", 0.5, 0.25) == "improved 0.5000 (+0.2500 better)"
    assert say("attribute_error", 0.5, 0.25) == "attribute_error 0.5000 (+0.2500)"
    assert say("attribute_error", 0.5, 0.25, "min") == "attribute_error 0.5000 (+0.2500 worse)"
    assert say("psnr", 23.414, 23.0, short=True) == "psnr 23.41 (+0.41)"


def test_the_headline_has_the_scores_of_the_result_alone() -> None:
    names = [
        "fid_random",
        "fid_random_input",
        "psnr",
        "psnr_xg",
        "psnr_input",
        "lpips_vgg",
        "id",
        "improved",
        "attribute_error",
    ]
    found = headline({f"val/{name}": 1.0 for name in names})
    assert list(found) == ["psnr", "lpips_vgg", "id", "fid_random", "improved", "attribute_error"]


def test_a_validation_without_scores_says_nothing(tmp_path, capsys) -> None:
    options = ["--method", "gan_prior", "--preset", "smoke", "--metrics.fid", "off"]
    assert main([*options, "--run_dir", str(tmp_path / "run")]) == 0
    assert "validation at" not in capsys.readouterr().err
