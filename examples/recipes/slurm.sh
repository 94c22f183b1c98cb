#!/usr/bin/env bash
# Plan a sweep, train it as a Slurm array, analyse it when every run has ended well.
#
#   BIMIX_SOURCE=mlflow+http://tracking:5000#pilot bash slurm.sh code web books
#
# RUNS, TOKENS (of the final run), PLAN (a folder that all nodes see) and TRAIN (see `bimix plan --command`) change it.
set -euo pipefail
: "${BIMIX_SOURCE:?where the runs are logged, such as mlflow+http://tracking:5000#pilot}"
export BIMIX_SOURCE # the jobs get it from the environment: a password in it is in no script and no queue
plan=${PLAN:-bimix-plan}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
default="python $(printf %q "$here")/proxy.py --tracker \"\$BIMIX_SOURCE\" --mixture {mixture} --name {name} --seed {seed}"

bimix plan "$@" --runs "${RUNS:-8}" --out "$plan" --command "${TRAIN:-$default}"

sweep=$(sbatch --parsable "$plan/runs.sh")
sweep=${sweep%%;*} # a federation's answer is "id;cluster"

# afterok: all runs of the array, with exit code 0. If one fails, the analysis is cancelled: mend that run
# (bash $plan/runs.sh INDEX), then analyse. afterany instead analyses whatever has finished.
sbatch --parsable --job-name=bimix-analyze --dependency="afterok:$sweep" --kill-on-invalid-dep=yes \
  --wrap "bimix analyze \"\$BIMIX_SOURCE\" --tokens ${TOKENS:-100e9} --write-back"
