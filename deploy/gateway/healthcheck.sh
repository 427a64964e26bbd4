#!/usr/bin/env bash
# Whether each of the gateway's clusters has a healthy endpoint, according to Envoy's admin interface. Only bash, as
# the image has no HTTP client, and no child process: while the gateway hangs, a child would outlive this script when
# it is killed, and the container has no init process to reap it.
#   healthcheck.sh [PORT [SECONDS]]
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:-9901}"
printf 'GET /stats?filter=membership_healthy$ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
stats=
while read -rt "${2:-5}" -u 3 line; do
    stats+=$line$'\n'
done
[[ $stats == *'membership_healthy: '* && $stats != *'membership_healthy: 0'* ]]
