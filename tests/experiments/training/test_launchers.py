"""Runs that SLURM and torchrun start: as many processes as the options name, one run in one folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from _runtime import UserError
from experiments.fit import main
from experiments.shared.naming import default_run
from experiments.training.command_line import resolve
from experiments.training.launchers import Launch, ask_for_requeue, check_launch, find_launch
from experiments.training.ranks import FIRST
from lightning_modules.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "experiments" / "slurm"
SMALL = ["--preset", "smoke", "--trainer.accelerator", "cpu"]
JOB = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "gpen", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"}
TASK = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}

SRUN = """#!{python}
import os, signal, subprocess, sys

command = sys.argv[1:]
while command[0].startswith("--"):
    option = command.pop(0)
    if "=" not in option:
        command.pop(0)
tasks = []
for rank in map(str, range(int(os.environ["SLURM_NTASKS"]))):
    own = {{"SLURM_STEP_ID": "0", "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0"}}
    tasks.append(subprocess.Popen(command, env=os.environ | own))
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> {log}
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch) -> None:
    """No launcher but the test's."""
    for name in os.environ:
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in (
            "RANK",
            "LOCAL_RANK",
            "WORLD_SIZE",
            "LOCAL_WORLD_SIZE",
            "NODE_RANK",
        ):
            monkeypatch.delenv(name)


def set_variables(monkeypatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "launch"),
    [
        ({}, Launch("hand")),
        ({**JOB, "SLURM_NTASKS": "1"}, Launch("hand")),
        ({**JOB, **TASK, "SLURM_NTASKS": "4"}, Launch("srun", 4, 1)),
        (
            {**JOB, **TASK, "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            Launch("srun", 4, 2),
        ),
        (
            {**JOB, **TASK, "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_STEP_NUM_NODES": "1"},
            Launch("srun", 4, 1),
        ),
        ({**JOB, "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"}, Launch("hand")),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, Launch("torchrun", 2, 2)),
        (
            {**JOB, "SLURM_NTASKS": "2", "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"},
            Launch("torchrun", 4, 1),
        ),
    ],
)
def test_who_started_a_run_is_read_from_the_environment(
    variables: dict[str, str], launch: Launch, monkeypatch
) -> None:
    set_variables(monkeypatch, **variables)
    assert find_launch() == launch


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        (
            {**TASK, "SLURM_NTASKS": "2"},
            "",
            "srun started 2 processes on 1 node.* 1 x 1: write --trainer.devices 2, or start 1$",
        ),
        (
            {**TASK, "SLURM_NTASKS": "2"},
            "--trainer.devices 4 --data.batch_size 8",
            "4 x 1: write --trainer.devices 2, or start 4$",
        ),
        (
            {**TASK, "SLURM_NTASKS": "4", "SLURM_NNODES": "2"},
            "--trainer.devices 2",
            "write --trainer.devices 2 --trainer.num_nodes 2",
        ),
        (
            {**TASK, "SLURM_NTASKS": "2"},
            "--trainer.num_nodes 2",
            "write --trainer.devices 2 --trainer.num_nodes 1",
        ),
        (
            {**TASK, "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_STEP_TASKS_PER_NODE": "3,1"},
            "",
            "give --ntasks-per-node",
        ),
        (
            {"SLURM_NTASKS": "2"},
            "--trainer.devices 2",
            "2 tasks, but this started without srun: put srun before python",
        ),
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"},
            "--trainer.devices 2",
            "started without srun: put",
        ),
        (
            {**TASK, "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "1"},
            "",
            "a job named bash.*--job-name",
        ),
        (
            {"SLURM_NTASKS": "1"},
            "--trainer.devices 2 --trainer.num_nodes 2",
            "srun --nodes 2 --ntasks-per-node 2 python",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
            "",
            "torchrun started 2.*--trainer.devices 2",
        ),
    ],
)
def test_processes_that_do_not_fit_the_options_are_one_line(
    variables, options: str, message: str, monkeypatch, tmp_path
) -> None:
    set_variables(monkeypatch, **JOB | variables)
    with pytest.raises(UserError, match=message) as error:
        main(["--method", "gpen", *SMALL, "--run_dir", str(tmp_path / "run"), *options.split()])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_slurm_job_with_gpus_does_not_train_without_them_by_itself(monkeypatch, tmp_path) -> None:
    set_variables(monkeypatch, **JOB, SLURM_NTASKS="1", SLURM_GPUS_ON_NODE="4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    smoke = ["--method", "gpen", "--preset", "smoke", "--dry_run", "--run_dir", str(tmp_path / "run")]
    complaint = "has GPUs, but torch sees none here: .*--gpus-per-node.*--trainer.accelerator cpu"
    with pytest.raises(UserError, match=complaint):
        main(smoke)
    assert main([*smoke, "--trainer.accelerator", "cpu"]) == 0


def test_tasks_that_see_one_gpu_each_are_told_how_to_ask_for_all(monkeypatch, tmp_path) -> None:
    set_variables(monkeypatch, **JOB, **TASK, SLURM_NTASKS="4")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    options = ["--trainer.accelerator", "gpu", "--trainer.devices", "4", "--run_dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=r"machine only has: \[0\].*--gpus-per-node, not --gpus-per-task"):
        main(["--method", "gpen", "--preset", "smoke", *options])


def test_the_run_folder_has_a_short_name_too_in_files_as_well(tmp_path) -> None:
    (tmp_path / "my.yaml").write_text("run: from-a-file\n")
    command = ["--method", "gpen", "--preset", "smoke"]
    assert resolve([*command, "--run", "short"])[0].run_dir == "short"
    assert resolve([*command, "--config", str(tmp_path / "my.yaml")])[0].run_dir == "from-a-file"
    (tmp_path / "my.yaml").write_text("run_dir: from-a-file\n")
    assert resolve([*command, "--config", str(tmp_path / "my.yaml")])[0].run_dir == "from-a-file"


def programs(folder: Path) -> dict[str, str]:
    """An environment where srun starts tasks on this machine, and scontrol keeps what it is told in a log."""
    contents = {
        "srun": SRUN.format(python=sys.executable),
        "scontrol": SCONTROL.format(log=folder / "scontrol.log"),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        (folder / name).chmod(stat.S_IRWXU)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    inherited = {FIRST: str(os.getppid())}  # of a run that started this one
    return {
        **os.environ,
        **paths,
        **inherited,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "SLURM_CPUS_PER_TASK": "1",
    }


def iterations(run: Path) -> list[int]:
    with open(run / "metrics.csv", newline="") as file:
        return [int(row["iteration"]) for row in csv.DictReader(file)]


def starts(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "segments.jsonl").read_text().splitlines()]


@pytest.mark.processes
def test_two_tasks_of_slurm_are_one_run_that_is_saved_and_requeued_before_the_job_ends(tmp_path) -> None:
    job = {**JOB, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "ENVIRONMENT": "BATCH"}
    environment = {**programs(tmp_path), **job}
    run = tmp_path / "run"
    options = [*SMALL, "--iterations", "80", "--validate_every", "80", "--log_every", "2"]
    options += ["--wandb", "offline"]
    script = ["bash", str(SCRIPTS / "single_node.sh"), "--method", "gpen", *options, "--run_dir", str(run)]

    with open(tmp_path / "first.log", "w") as log:
        first = subprocess.Popen(script, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + 240
    while not ((run / "metrics.csv").exists() and iterations(run)):
        assert time.monotonic() < end, (tmp_path / "first.log").read_text()
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    status = first.wait(timeout=240)
    said = (tmp_path / "first.log").read_text()
    assert status == 128 + signal.SIGUSR1, said
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4242\n"
    assert "stopped by SIGUSR1 at iteration" in said
    assert "job 4242 is requeued and goes on by itself" in said
    stopped = read_checkpoint(run / "checkpoints/last.ckpt")["suite"]["iteration"]
    assert 0 < stopped < 80
    identity = (run / "wandb_id").read_text()

    again = subprocess.run(script, cwd=tmp_path, env=environment, timeout=240, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert iterations(run) == [*range(2, 81, 2), 80]  # the last row is the validation's
    assert [start["iteration"] for start in starts(run)] == [0, stopped]
    assert {start["devices"] for start in starts(run)} == {"2 x CPU"}
    assert {start["job"] for start in starts(run)} == {"4242"}
    assert (run / "wandb_id").read_text() == identity
    assert {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")} == {identity}


@pytest.mark.processes
def test_two_processes_of_torchrun_are_one_run(tmp_path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    fit = ["-m", "experiments.fit", "--method", "gpen", *SMALL]
    command = [*torchrun, *fit, "--trainer.devices", "2", "--run_dir", str(run)]
    done = subprocess.run(
        command, cwd=tmp_path, env=programs(tmp_path), timeout=240, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert iterations(run) == [1, 2, 2, 3, 4, 4]
    assert [start["devices"] for start in starts(run)] == ["2 x CPU"]
    assert done.stdout.count("run folder:") == 1


@pytest.mark.processes
def test_lightning_starts_the_processes_in_a_job_of_one_task(tmp_path) -> None:
    run = tmp_path / "run"
    environment = {**programs(tmp_path), **JOB, **TASK, "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
    fit = [sys.executable, "-m", "experiments.fit", "--method", "gpen", *SMALL]
    command = [*fit, "--trainer.devices", "2", "--run_dir", str(run)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert iterations(run) == [1, 2, 2, 3, 4, 4]
    assert [start["devices"] for start in starts(run)] == ["2 x CPU"]


def test_the_script_for_several_nodes_names_what_slurm_gave(tmp_path) -> None:
    nodes = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "PYTHON": "echo"}
    said = output_of(SCRIPTS / "multi_node.sh", "--seed", "3", environment={**programs(tmp_path), **nodes})
    named = "--trainer.devices 4 --trainer.num_nodes 2"
    assert said.strip() == f"-m experiments.fit {named} --resume auto --seed 3"


def output_of(script: Path, *arguments: str, environment: dict[str, str]) -> str:
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_jobs_of_an_array_train_every_method_with_every_seed_in_folders_of_their_own(tmp_path) -> None:
    sweep = {"METHODS": "nafnet hinet", "SEEDS": "0 1 5", "SLURM_NTASKS": "1", "PYTHON": "echo"}
    environment = {**programs(tmp_path), **sweep}
    folders = []
    for task in range(6):
        environment["SLURM_ARRAY_TASK_ID"] = str(task)
        words = output_of(SCRIPTS / "array.sh", *SMALL, environment=environment).split()
        assert words[:2] == ["-m", "experiments.fit"]
        assert words[-len(SMALL) - 2 :] == ["--resume", "auto", *SMALL]
        folders.append(default_run(resolve(words[2:])[0]).name)
    seeds = ("", "-seed=1", "-seed=5")
    assert folders == [f"{method}-smoke{seed}" for method in ("nafnet", "hinet") for seed in seeds]
    environment["SLURM_ARRAY_TASK_ID"] = "6"
    refused = subprocess.run(["bash", SCRIPTS / "array.sh"], env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "write --array 0-5" in refused.stderr


def test_the_job_of_an_array_is_requeued_by_its_own_number(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path)["PATH"])
    set_variables(monkeypatch, **JOB, SLURM_ARRAY_JOB_ID="4240", SLURM_ARRAY_TASK_ID="2")
    assert ask_for_requeue(resumes=True) == "job 4240_2 is requeued and goes on by itself"
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4240_2\n"


def test_a_job_that_cannot_be_requeued_says_why(monkeypatch, tmp_path) -> None:
    assert "nothing was requeued" in ask_for_requeue(resumes=True)
    set_variables(monkeypatch, **JOB)
    assert "give it --resume auto" in ask_for_requeue(resumes=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file or directory: 'scontrol'; submit it again" in ask_for_requeue(resumes=True)
    disabled = "Requested operation is presently disabled"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho {disabled} >&2\nexit 1\n")
    (tmp_path / "scontrol").chmod(stat.S_IRWXU)
    assert ask_for_requeue(resumes=True) == f"job 4242 is not requeued: {disabled}; submit it again"


def test_launchers_agree_with_options_that_name_their_processes() -> None:
    check_launch(Launch("srun", 4, 2), devices=4, nodes=2)
    check_launch(Launch("torchrun", 2, 1), devices=2, nodes=1)
    check_launch(Launch("hand"), devices=4, nodes=1)
