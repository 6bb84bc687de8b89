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
  if { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core; } >/dev/null 2>&1; then
    for service in prometheus prometheus-node-exporter prometheus-alertmanager victoria-metrics; do
      command -v systemctl >/dev/null && systemctl disable --now "$service" >/dev/null 2>&1
    done
    exit 0
  fi
fi
echo "not installed: ${missing[*]}; the tests that need them are skipped (Debian: apt-get install ${missing[*]})"
exit 0
