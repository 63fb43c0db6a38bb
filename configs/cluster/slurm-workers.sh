#!/bin/bash
# Workers of one study as a Slurm job array. Begin the study with `filter-search run`, then:
#   sbatch --export=ALL,STUDY=studies/digits configs/cluster/slurm-workers.sh
# Each task is one worker. It stops after the jobs at hand when its time is nearly over, and is queued again. Jobs that
# last longer than that go back into the study's queue.
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

# In seconds: how long jobs at hand may last after SIGUSR1, which comes 600 before the end, and how long the worker may
# take to drop them.
last=540
drop=30

out_of_time=no
since=0
trap 'out_of_time=yes; since=$SECONDS; kill -USR1 "$worker" 2>/dev/null' USR1
trap 'kill -TERM "$worker" 2>/dev/null' TERM

filter-search worker "$STUDY" --workers "${SLURM_CPUS_PER_TASK:-1}" &
worker=$!
while kill -0 "$worker" 2>/dev/null; do
  if [ "$out_of_time" = yes ] && [ $((SECONDS - since)) -ge "$last" ]; then
    kill -USR1 "$worker" 2>/dev/null # a second time: drop them
    sleep "$drop"
    kill -KILL "$worker" 2>/dev/null
  fi
  sleep 1 # in which bash runs no trap
done
wait "$worker"
status=$?

# 143: asked to stop and stopped, with work left; 137: killed above.
if [ "$out_of_time" = yes ] && { [ "$status" -eq 143 ] || [ "$status" -eq 137 ]; }; then
  exec scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
