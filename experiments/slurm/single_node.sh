#!/bin/bash
# One training on the GPUs of one node, one task per GPU:
#   sbatch experiments/slurm/single_node.sh --method gpen --data.root ffhq.zip --model.prior scratch
# Another number of GPUs: sbatch --gpus-per-node 8 --ntasks-per-node 8 experiments/slurm/single_node.sh ...
#SBATCH --job-name gpen
#SBATCH --nodes 1
#SBATCH --gpus-per-node 4
#SBATCH --ntasks-per-node 4
#SBATCH --cpus-per-task 8
#SBATCH --time 24:00:00
#SBATCH --signal SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode append

# Two minutes before its time ends the job is sent SIGUSR1: the run saves, asks to be queued again and goes on where it stopped.
# A task sees all GPUs of its node and takes its own. `exec` hands on what SLURM sends to this script alone (--signal B:SIGUSR1@120).
exec srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" "${PYTHON:-python}" -m experiments.fit \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --resume auto "$@"
