#!/usr/bin/env bash
# The state of a SLURM job in the words of Snakemake's generic executor: running, success, failed.
# Another cluster needs another script: PBS `qstat -x -f`, SGE `qstat -j` and `qacct -j`.
job=$1
for _ in 1 2 3 4 5; do
  # squeue forgets ended jobs after MinJobAge (5 minutes unless configured), sacct does not.
  state=$(squeue --noheader --states=all --format=%T --jobs="$job" 2> /dev/null | head -1)
  [ -n "$state" ] || state=$(sacct -X -n -P -o State -j "$job" 2> /dev/null | head -1)
  case "$state" in
    COMPLETED) echo success; exit ;;
    BOOT_FAIL* | CANCELLED* | DEADLINE* | FAILED* | NODE_FAIL* | OUT_OF_ME* | TIMEOUT* | ERROR*)
      echo failed; exit ;;
    ?*) echo running; exit ;; # also PREEMPTED and REQUEUED: SLURM runs it again
  esac
  sleep 3 # neither answers: the controller may be busy
done
echo failed
