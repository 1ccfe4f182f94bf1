"""Who started the processes of a run: srun, torchrun or Lightning; and are they as many as asked for?"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from _runtime import UserError

INTERACTIVE = ("bash", "interactive")  # jobs that are a shell: their variables are not of what runs in it


@dataclass(frozen=True)
class Launch:
    """What was started: `per_node` processes on each of `nodes` machines, or a single one by hand."""

    by: Literal["srun", "torchrun", "hand"]
    per_node: int = 1
    nodes: int = 1


def find_launch() -> Launch:
    """What the environment's variables say.

    A single SLURM task counts as started by hand, so that `--trainer.devices 4` starts
    three more as anywhere else.

    Raises:
        UserError: SLURM has several tasks, and this is none of them, or one that would train by itself.
    """
    if TorchElasticEnvironment.detect():
        per_node = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        return Launch("torchrun", per_node, int(os.environ["WORLD_SIZE"]) // per_node)
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if tasks == 1:
        return Launch("hand")
    name = os.environ.get("SLURM_JOB_NAME")
    if name in INTERACTIVE:
        if os.environ.get("SLURM_PROCID", "0") != "0":
            words = "every task would train by itself: give srun --job-name another name"
            raise UserError(f"in a job named {name} {words}")
        return Launch("hand")
    batch_script = os.environ.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in os.environ
    if "SLURM_PROCID" not in os.environ or batch_script:
        without = f"the SLURM job has {tasks} tasks, but this started without srun"
        raise UserError(f"{without}: put srun before python")
    return Launch("srun", *_layout(tasks))


def _layout(tasks: int) -> tuple[int, int]:
    """Tasks per node and nodes of a step."""
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES") or "1")
    spread = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")  # e.g. 4(x2), or 3,1
    if "," in spread or tasks % nodes:
        uneven = f"SLURM spread {spread or tasks} tasks over {nodes} nodes unevenly"
        raise UserError(f"{uneven}: give --ntasks-per-node")
    return tasks // nodes, nodes


def check_launch(launch: Launch, devices: int, nodes: int) -> None:
    """Raise `UserError` unless `--trainer.devices` times `--trainer.num_nodes` is what was started."""
    if launch.by == "hand":
        if nodes > 1 and "SLURM_JOB_ID" in os.environ and "NODE_RANK" not in os.environ:
            srun = f"srun --nodes {nodes} --ntasks-per-node {devices} python -m experiments.fit ..."
            raise UserError(
                f"--trainer.num_nodes {nodes} without srun would wait for the other nodes for ever: "
                f"start one task per device, {srun}"
            )
        return
    if (launch.per_node, launch.nodes) == (devices, nodes):
        return
    wanted = f"--trainer.devices {launch.per_node}"
    if (nodes, launch.nodes) != (1, 1):
        wanted += f" --trainer.num_nodes {launch.nodes}"
    machines = "node" if launch.nodes == 1 else "nodes"
    raise UserError(
        f"{launch.by} started {launch.per_node * launch.nodes} processes on {launch.nodes} {machines}, "
        f"but --trainer.devices times --trainer.num_nodes are {devices} x {nodes}: "
        f"write {wanted}, or start {devices * nodes}"
    )


def environments(launch: Launch) -> list[Any]:
    """Lightning's plugin for it; none where Lightning finds the right one by itself."""
    if launch.by == "srun":
        # what `srun --ntasks` leaves out and Lightning insists on
        os.environ["SLURM_NTASKS_PER_NODE"] = str(launch.per_node)
        # its handler saves within a signal, ours after an iteration
        return [SLURMEnvironment(auto_requeue=False)]
    if launch.by == "hand" and "SLURM_NTASKS" in os.environ:
        return [LightningEnvironment()]
    return []


def job() -> str | None:
    """The SLURM job this belongs to, as `scontrol` takes it; None outside of one and in a shell's."""
    number = os.environ.get("SLURM_JOB_ID")
    if number is None or os.environ.get("SLURM_JOB_NAME") in INTERACTIVE:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is None:
        return number
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def ask_for_requeue(resumes: bool) -> str:
    """Let SLURM start the job again that a signal ended.

    One process calls this, last: SLURM ends the job with it.

    Args:
        resumes: whether the job's command goes on where it stopped.

    Returns:
        What came of it.
    """
    name = job()
    if name is None:
        return "not in a batch job of SLURM: nothing was requeued"
    if not resumes:
        return f"job {name} is not requeued, since its command would start anew: give it --resume auto"
    complaint = _requeue(name)
    if complaint is None:
        return f"job {name} is requeued and goes on by itself"
    return f"job {name} is not requeued: {' '.join(complaint.split())}; submit it again"


def _requeue(name: str) -> str | None:
    """Requeue a job; returns why it could not be, None where it was."""
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode:
        return done.stderr.strip() or f"scontrol ended with status {done.returncode}"
    return None
