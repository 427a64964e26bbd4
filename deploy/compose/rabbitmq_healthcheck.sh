#!/usr/bin/env bash
# Whether RabbitMQ takes clients, which is the last step of its start, and whether it still does anything: the system
# completes connections to a server that hangs, so its management plugin has to answer. rabbitmq-diagnostics would take
# a second of processor time, each time.
#   rabbitmq_healthcheck.sh [PORT [MANAGEMENT-PORT [SECONDS]]]
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${1:-5672}" 4<>"/dev/tcp/127.0.0.1/${2:-15672}"
printf 'GET / HTTP/1.0\r\n\r\n' >&4
read -rt "${3:-8}" -u 4 status
[[ $status == *' 200 '* ]]
