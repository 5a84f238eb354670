#!/usr/bin/env bash
# Two Ray nodes on this machine, to try what needs more than one; they end with the command.
#
#   cluster/local-two-nodes.sh COMMAND...
#   cluster/local-two-nodes.sh tunekit search digits --space resnet --samples 8 --epochs 9
#
# The command finds them by RAY_ADDRESS. Each node has half of the CPUs; GPUs belong to the first.
set -euo pipefail
umask 077  # the token below is for nobody else

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# Ray's sockets lie in here, and their paths may have 107 characters at most: so not below TMPDIR.
folder=$(mktemp -d /tmp/tunekit-nodes.XXXXXX)
nodes=() command_id=''
# shellcheck disable=SC2317  # the trap calls it
end() {
  trap '' INT TERM HUP
  # Never `ray stop`: it would end every Ray of this user on the machine. The head goes last.
  for ((i = ${#nodes[@]} - 1; i >= 0; i--)); do
    kill -TERM "${nodes[i]}" 2>/dev/null || true
    wait "${nodes[i]}" || true
  done
  rm -rf "$folder"
}
trap end EXIT

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0  # under `uv run` Ray would copy this folder to nodes that have it
cpus=$((($(nproc) + 1) / 2))
port=$(python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')

start_node() {
  local log=$folder/node-${#nodes[@]}.log
  : >"$log"  # it is read at once, maybe before the node has opened it
  # In a session of its own: Ctrl-C is for the command, the nodes end in order afterwards.
  PYTHONUNBUFFERED=1 setsid ray start "$@" --block --num-cpus="$cpus" --disable-usage-stats >"$log" 2>&1 &
  nodes+=($!)
  for _ in $(seq 240); do
    grep -q 'Ray runtime started' "$log" && return
    kill -0 "$!" 2>/dev/null || break
    sleep 0.25
  done
  echo "local-two-nodes.sh: a node does not start:" >&2
  cat "$log" >&2
  exit 1
}
start_node --head --port="$port" --include-dashboard=false --temp-dir="$folder/ray"
start_node --address="127.0.0.1:$port" --num-gpus=0

# The command gets the signals that come here, and its exit code is ours.
for signal in INT TERM HUP USR1; do
  # shellcheck disable=SC2064  # the signal's name of now
  trap "kill -$signal \$command_id 2>/dev/null || true" "$signal"
done
# In a session of its own it gets Ctrl-C once, from here; `env` undoes that a shell lets what it starts in
# the background ignore it.
RAY_ADDRESS=127.0.0.1:$port setsid env --default-signal=INT "$@" <&0 &
command_id=$!
while :; do  # a signal ends `wait`, while the command may still have things to save
  code=0
  wait "$command_id" || code=$?
  kill -0 "$command_id" 2>/dev/null || break
done
exit "$code"
