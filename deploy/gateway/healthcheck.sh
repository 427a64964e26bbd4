#!/usr/bin/env bash
# Whether each of the gateway's clusters has a healthy endpoint: asked of its own administration, as its image has no
# HTTP client. Bash alone, and no longer than it is waited for: a child that a gateway which hangs keeps waiting would
# outlive this, and nobody there buries the dead.
#   healthcheck.sh [PORT [SECONDS]]
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:-9901}"
printf 'GET /stats?filter=membership_healthy$ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
stats=
while read -rt "${2:-5}" -u 3 line; do
    stats+=$line$'\n'
done
[[ $stats == *'membership_healthy: '* && $stats != *'membership_healthy: 0'* ]]
