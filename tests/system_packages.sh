#!/usr/bin/env bash
# The servers, the browser and the lint that some tests use for real: installed with apt when root, else those tests are skipped.
set -uo pipefail
declare -A package=([prometheus]=prometheus [prometheus-node-exporter]=prometheus-node-exporter [prometheus-alertmanager]=prometheus-alertmanager
                    [victoria-metrics]=victoria-metrics [chromium]=chromium [shellcheck]=shellcheck)
missing=()
for program in "${!package[@]}"; do command -v "$program" >/dev/null || missing+=("${package[$program]}"); done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]} for the tests"
  # the servers are started by the tests themselves, never by the system
  export DEBIAN_FRONTEND=noninteractive
  # another installation that is under way is waited for, at most ten minutes
  wait=(-o DPkg::Lock::Timeout=600 -o APT::Get::Lock::Timeout=600)
  update() {       # the lists' lock has no time-out of its own
    local said
    for _ in $(seq 60); do
      said=$(apt-get "${wait[@]}" update -qq 2>&1) && return
      grep -qi 'lock' <<<"$said" || return 1
      sleep 10
    done
    return 1
  }
  if { update && apt-get "${wait[@]}" install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core; } >/dev/null 2>&1; then
    for service in prometheus prometheus-node-exporter prometheus-alertmanager victoria-metrics; do
      command -v systemctl >/dev/null && systemctl disable --now "$service" >/dev/null 2>&1
    done
    exit 0
  fi
fi
echo "not installed: ${missing[*]}; the tests that need them are skipped (Debian: apt-get install ${missing[*]})"
exit 0
