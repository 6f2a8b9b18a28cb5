#!/bin/sh
# Debian packages that some tests use; without them these tests are skipped and say so.
set -eu
if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "PostgreSQL is not installed, and this user cannot install it: its tests will be skipped." >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# The tests start servers of their own; the package's default cluster is not wanted.
mkdir -p /etc/postgresql-common
grep -qs '^create_main_cluster' /etc/postgresql-common/createcluster.conf ||
    echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
apt-get update -qq
apt-get install -y -qq --no-install-recommends postgresql >/dev/null
