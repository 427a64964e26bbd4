#!/usr/bin/env bash
# Whether RabbitMQ accepts clients, the last step of its start, and still responds: the kernel completes connections to
# a server that hangs, so the management plugin has to answer. rabbitmq-diagnostics would use a second of processor time
# per check.
#   rabbitmq_healthcheck.sh [PORT [MANAGEMENT-PORT [SECONDS]]]
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:-5672}" 4<>"/dev/tcp/127.0.0.1/${2:-15672}"
printf 'GET / HTTP/1.0\r\n\r\n' >&4
read -rt "${3:-8}" -u 4 status
[[ $status == *' 200 '* ]]
