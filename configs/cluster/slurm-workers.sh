#!/bin/bash
# Workers of one study as a Slurm job array. Begin the study with `filter-search run`, then:
#   sbatch --export=ALL,STUDY=studies/digits configs/cluster/slurm-workers.sh
# Each task is one worker. It stops after the jobs at hand when its time is nearly over, and is queued again.
#SBATCH --job-name=filter-search
#SBATCH --array=0-15
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=filter-search-%A-%a.log
# On GPUs add: #SBATCH --gpus-per-task=1

: "${STUDY:?name the study folder: sbatch --export=ALL,STUDY=studies/digits $0}"

out_of_time=no
# bash runs a trap once what it waits for lets it, so the worker runs in the background and is waited for.
trap 'out_of_time=yes; kill -USR1 "$worker" 2>/dev/null' USR1
trap 'kill -TERM "$worker" 2>/dev/null' TERM

filter-search worker "$STUDY" --workers "${SLURM_CPUS_PER_TASK:-1}" &
worker=$!
wait "$worker"
status=$?
while kill -0 "$worker" 2>/dev/null; do # a signal came, which ends `wait` and not the worker
  wait "$worker"
  status=$?
done

# 143: asked to stop and stopped, with work left.
if [ "$status" -eq 143 ] && [ "$out_of_time" = yes ]; then
  exec scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
