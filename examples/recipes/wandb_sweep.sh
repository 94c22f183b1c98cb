#!/usr/bin/env bash
# Plan a sweep, let W&B hand its runs to agents, analyse it when all of them are finished.
#
#   WANDB_PROJECT=pilot bash wandb_sweep.sh code web books
#
# RUNS, TOKENS (of the final run), PLAN (a folder) and PROGRAM change it. PROGRAM is called as a W&B agent does:
# --run=NAME --runs=JSON (see proxy.py), and logs with tracker "wandb:".
set -euo pipefail
: "${WANDB_PROJECT:?the project}"
runs=${RUNS:-8} plan=${PLAN:-bimix-plan}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

bimix plan "$@" --runs "$runs" --out "$plan" --command "python $(printf %q "${PROGRAM:-$here/proxy.py}")"

sweep=$(wandb sweep --project "$WANDB_PROJECT" "$plan/sweep.yaml" 2>&1 | sed -n 's/.*wandb agent \([^ ]*\).*/\1/p')
: "${sweep:?wandb sweep named no sweep}"

# One agent here; start this line on as many machines as there are.
wandb agent --count "$runs" "$sweep"

bimix analyze "wandb:${sweep%/*}/sweeps/${sweep##*/}" --tokens "${TOKENS:-100e9}" \
  --wait "$runs" --timeout 86400 --write-back
