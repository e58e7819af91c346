#!/bin/bash
# One training on several nodes of Slurm, one process a node with all its GPUs: sbatch scripts/launch/slurm.sh
#
# All nodes must see this folder. Two minutes before the time is up, or when the job is preempted, the run saves its
# step and ends with status 143; the job then queues again and goes on from there, and so after a failed node.
#SBATCH --job-name=ilqljax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

run=runs/$SLURM_JOB_NAME-$SLURM_JOB_ID # the same when the job is queued again
if [ -f "$run/config.json" ]; then place=--config.resume=$run; else place=--config.run_dir=$run; fi

JAX_COORDINATOR_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):12345
export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$SLURM_NNODES

# grace_seconds is what a process has from SIGTERM to its end, below the two minutes above.
srun bash -c 'JAX_PROCESS_ID=$SLURM_PROCID exec "$@"' bash \
    ilqljax train --config configs/workable.py:gpt2 --config.grace_seconds=100 --distributed "$place"
status=$?
if [ $status = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
