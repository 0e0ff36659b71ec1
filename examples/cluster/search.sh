#!/usr/bin/env bash
# Runs the sweep beside this file, or goes on with what an earlier start of the same job left in the storage.
#   search.sh STORAGE [--address HEAD:6379]
set -euo pipefail
sweep=$(dirname "$0")/sweep.yaml
storage=$1
shift
for started in "$storage"/*/sweep.yaml; do
  if [ -e "$started" ]; then
    set -- --resume "$@"
  fi
  break
done
exec roletune search "$sweep" --storage "$storage" "$@"
