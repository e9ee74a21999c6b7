#!/bin/sh
# Boots a tree with systemd as its init, also where this machine's own init is another one. Called by machine.py:
#
#   boot.sh LOWER UPPER WORK MERGED NAME
#
# It runs as the first process of a pid namespace of its own (unshare --kill-child): when it ends, or whoever started it
# ends, everything in it ends with it, and its mounts with its mount namespace.
set -eu
lower=$1 upper=$2 work=$3 merged=$4 name=$5

mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$merged"
# systemd-nspawn wants a cgroup2 hierarchy alone, whose root is its own, and a place for its state.
umount -R /sys/fs/cgroup 2>/dev/null || umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /sys/fs/cgroup/supervisor
echo $$ >/sys/fs/cgroup/supervisor/cgroup.procs
# Of a reboot it tells by this exit code, for whoever keeps its unit.
rebooted=133
while code=0 && { systemd-nspawn --boot --directory="$merged" --machine="$name" --register=no --keep-unit \
  --private-network --quiet --console=pipe --resolv-conf=off --timezone=off --link-journal=no || code=$?; }; do
  [ "$code" -eq "$rebooted" ] || exit "$code"
done
