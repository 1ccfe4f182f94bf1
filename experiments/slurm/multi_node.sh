#!/bin/bash
# One training on the GPUs of several nodes, one task per GPU; --data.batch_size is the total of all:
#   sbatch experiments/slurm/multi_node.sh --method nafnet --data.root ffhq/ --data.batch_size 64
#SBATCH --job-name nafnet
#SBATCH --nodes 2
#SBATCH --gpus-per-node 4
#SBATCH --ntasks-per-node 4
#SBATCH --cpus-per-task 8
#SBATCH --time 24:00:00
#SBATCH --signal SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode append

# As in single_node.sh. All nodes must see the same run folder and data, under the same paths.
exec srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" "${PYTHON:-python}" -m experiments.fit \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.num_nodes "$SLURM_NNODES" --resume auto "$@"
