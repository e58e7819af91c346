#!/bin/bash
# One training on several hosts that you may log in to: bash scripts/launch/ssh.sh HOST HOST ...
#
# All hosts must see this folder at the same place, have ilqljax on the PATH of a login, and reach the first one's port
# 12345. To end all of them with their step saved, end one: ssh HOST pkill -TERM -f "ilqljax train". Run this again with
# RESUME=runs/... to go on.
[ $# -gt 1 ] || { echo "usage: [RESUME=runs/...] bash scripts/launch/ssh.sh HOST HOST ..." >&2; exit 2; }

command="ilqljax train --config configs/workable.py:gpt2 --distributed ${RESUME:+--config.resume=$RESUME}"
first=$1 count=$# index=0 processes=()
for host in "$@"; do
    who="JAX_COORDINATOR_ADDRESS=$first:12345 JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$index"
    ssh "$host" "cd $(printf %q "$PWD") && env $who $command" &
    processes+=($!)
    index=$((index + 1))
done

status=0
for process in "${processes[@]}"; do wait "$process" || status=$?; done
exit $status
