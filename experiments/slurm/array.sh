#!/bin/bash
# A sweep, one training on one GPU per job of the array: every method with every seed.
#   METHODS="nafnet hinet" SEEDS="0 1 2" sbatch --array 0-5 experiments/slurm/array.sh --data.root ffhq.zip
# Run folders tell methods and seeds apart by themselves: leave out --run_dir.
#SBATCH --job-name sweep
#SBATCH --gpus-per-node 1
#SBATCH --ntasks 1
#SBATCH --cpus-per-task 8
#SBATCH --time 24:00:00
#SBATCH --signal SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode append

read -ra methods <<<"${METHODS:-gpen}"
read -ra seeds <<<"${SEEDS:-0 1 2}"
task=$SLURM_ARRAY_TASK_ID
if ((task >= ${#methods[@]} * ${#seeds[@]})); then
    echo "array task $task: there are ${#methods[@]} methods times ${#seeds[@]} seeds, write --array 0-$((${#methods[@]} * ${#seeds[@]} - 1))" >&2
    exit 2
fi

# Each job of the array is saved and queued again by itself, as in single_node.sh.
exec srun --cpus-per-task "$SLURM_CPUS_PER_TASK" "${PYTHON:-python}" -m experiments.fit \
    --method "${methods[task / ${#seeds[@]}]}" --seed "${seeds[task % ${#seeds[@]}]}" --resume auto "$@"
