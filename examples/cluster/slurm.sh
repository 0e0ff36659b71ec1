#!/usr/bin/env bash
# Slurm: a Ray cluster on the nodes of one job, and the sweep on its first node. From the root of the checkout, which
# lies on a file system that all nodes share, with roletune's environment active:
#   MLFLOW_TRACKING_URI=http://mlflow.example:5000 sbatch examples/cluster/slurm.sh
# A job that is preempted, loses a node or runs out of time is queued again, and the sweep goes on.
#SBATCH --job-name=roletune
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
set -euo pipefail

storage=$SLURM_SUBMIT_DIR/runs/slurm-$SLURM_JOB_ID   # the job keeps its number when it is queued again
export MLFLOW_TRACKING_URI=${MLFLOW_TRACKING_URI:?set it to the server that logs the sweep}
mkdir -p "$storage"

export RAY_AUTH_MODE=token   # else whoever reaches the nodes could run code as you
ray get-auth-token --generate > /dev/null
unset OMP_NUM_THREADS   # a trial has as many threads as resources.cpus_per_trial

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" -- \
  bash "$SLURM_SUBMIT_DIR/examples/cluster/search.sh" "$storage" --address "$head:6379" &
wait $!
compgen -G "$storage/*/result.json" > /dev/null   # where Ray itself does not start, symmetric-run says nothing is wrong
