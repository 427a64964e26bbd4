#!/usr/bin/env bash
# Whether each of the gateway's clusters has a healthy endpoint: asked of its own administration, as its image has no
# HTTP client.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/9901
printf 'GET /stats?filter=membership_healthy$ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
stats=$(cat <&3)
[[ $stats == *'membership_healthy: '* && $stats != *'membership_healthy: 0'* ]]
