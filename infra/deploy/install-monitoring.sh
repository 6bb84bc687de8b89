#!/usr/bin/env bash
# Put Prometheus, Alertmanager and node_exporter (Debian's packages) on a host and give them our configuration. May be run again.
#   install-monitoring.sh [--dry-run] [--no-packages] TARGETS.json
# ROOT=/some/folder writes below that folder, without packages and services (for images and tests).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry='' packages=yes targets=''
root=${ROOT:-} python=${PYTHON:-python3}

usage() { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

while (($#)); do
    case $1 in
        --dry-run) dry=yes ;;
        --no-packages) packages='' ;;
        -h | --help) usage ;;
        -*) echo "install-monitoring.sh: unknown option $1" >&2; usage ;;
        *) [[ -z $targets ]] || usage; targets=$1 ;;
    esac
    shift
done
[[ -n $targets ]] || usage
[[ -f $targets ]] || { echo "install-monitoring.sh: $targets: no such targets file" >&2; exit 1; }
[[ -n $root || -n $dry || $EUID -eq 0 ]] || { echo 'install-monitoring.sh: has to be run as root (or with --dry-run)' >&2; exit 1; }

run() { echo "+ $*"; [[ -n $dry ]] || "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/config" "$work/infra/scripts"
cp "$targets" "$work/config/aws_targets.json"
cp "$here/../scripts/prometheus_config.py" "$work/infra/scripts/"
(cd "$work" && "$python" infra/scripts/prometheus_config.py)      # standard library alone

if [[ -z $root && -n $packages ]]; then
    run apt-get install --yes --no-install-recommends prometheus prometheus-alertmanager prometheus-node-exporter
fi
(cd "$work/infra/prometheus" && find . -type f -print) | while read -r file; do
    target=$root/etc/prometheus/${file#./}
    cmp -s "$work/infra/prometheus/$file" "$target" || run install -D -m 0644 "$work/infra/prometheus/$file" "$target"
done
if [[ -d $here/../grafana ]]; then
    (cd "$here/../grafana" && find . -type f -print) | while read -r file; do
        target=$root/etc/grafana/${file#./}
        cmp -s "$here/../grafana/$file" "$target" || run install -D -m 0644 "$here/../grafana/$file" "$target"
    done
fi
if command -v promtool >/dev/null && [[ -z $dry ]]; then promtool check config --syntax-only "$root/etc/prometheus/prometheus.yml"; fi
if [[ -z $root && -d /run/systemd/system ]]; then
    run systemctl reload-or-restart prometheus prometheus-alertmanager
elif [[ -z $root ]]; then
    echo 'systemd is not running here; Prometheus and Alertmanager read their configuration when they start'
fi
echo "configured; Prometheus reads $root/etc/prometheus/prometheus.yml"
