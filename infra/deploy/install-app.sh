#!/usr/bin/env bash
# Put smartcloudops on a host: user, virtual environment, settings, systemd units. May be run again; changes only what differs.
#   install-app.sh [--dry-run] [--no-start] WHEEL
# ROOT=/some/folder installs below that folder without users and services (for images and tests).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry='' start=yes wheel=''
root=${ROOT:-} python=${PYTHON:-python3}

usage() { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

while (($#)); do
    case $1 in
        --dry-run) dry=yes ;;
        --no-start) start='' ;;
        -h | --help) usage ;;
        -*) echo "install-app.sh: unknown option $1" >&2; usage ;;
        *) [[ -z $wheel ]] || usage; wheel=$1 ;;
    esac
    shift
done
[[ -n $wheel ]] || usage
[[ -f $wheel ]] || { echo "install-app.sh: $wheel: no such wheel; make one with: python -m build" >&2; exit 1; }
[[ -n $root || -n $dry || $EUID -eq 0 ]] || { echo 'install-app.sh: has to be run as root (or with --dry-run)' >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'install-app.sh: Python 3.11 or newer is needed; set PYTHON=' >&2; exit 1; }

run() { echo "+ $*"; [[ -n $dry ]] || "$@"; }
put() { # put SOURCE TARGET MODE: only when it differs
    if cmp -s "$1" "$2"; then return; fi
    run install -D -m "$3" "$1" "$2"
}

if [[ -z $root ]] && ! id smartcloudops >/dev/null 2>&1; then
    run useradd --system --home-dir /var/lib/smartcloudops --shell /usr/sbin/nologin smartcloudops
fi
[[ -x $root/opt/smartcloudops/bin/python ]] || run "$python" -m venv "$root/opt/smartcloudops"
if [[ -z $root && -z $dry ]] && ! su -s /bin/sh smartcloudops -c '/opt/smartcloudops/bin/python -c ""' 2>/dev/null; then
    echo "install-app.sh: the user smartcloudops cannot run $(readlink -f /opt/smartcloudops/bin/python); remove /opt/smartcloudops and set PYTHON= to one that everybody can, e.g. /usr/bin/python3" >&2
    exit 1
fi
run "$root/opt/smartcloudops/bin/pip" install --quiet --disable-pip-version-check --upgrade "${wheel}[aws,reports]"
[[ -e $root/etc/smartcloudops/smartcloudops.toml ]] || put "$here/../../config/smartcloudops.toml" "$root/etc/smartcloudops/smartcloudops.toml" 0644
for unit in smartcloudops.service smartcloudops-report@.service smartcloudops-report@.timer; do
    put "$here/$unit" "$root/etc/systemd/system/$unit" 0644
done
if [[ -z $root && -d /run/systemd/system ]]; then
    run systemctl daemon-reload
    [[ -z $start ]] || run systemctl enable --now smartcloudops.service
elif [[ -z $root && -n $start ]]; then # an image being built: it starts at the first boot
    run systemctl enable smartcloudops.service
    echo 'systemd is not running here; smartcloudops.service starts at the next boot'
fi
echo "installed; settings: $root/etc/smartcloudops/smartcloudops.toml"
