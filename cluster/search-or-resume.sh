#!/usr/bin/env bash
# Begins the search NAME, or goes on with it if it is there: what a job runs that may be started again.
#
#   cluster/search-or-resume.sh NAME DATASET [OPTIONS of `tunekit search`]...
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1
shift
if [ -e "${TUNEKIT_RESULTS_DIR:?names the folder that all nodes share}/$name/search.json" ]; then
  exec tunekit resume "$name"
fi
exec tunekit search "$@" --name "$name"
