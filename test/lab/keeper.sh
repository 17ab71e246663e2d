#!/bin/bash
# keeper.sh MOUNTPOINT TREE SIZE: hold one machine's disk, and boot it at every
# line read from stdin.
#
# It runs as process 1 of its own PID namespace, in its own mount namespace.
# When stdin ends, because the test closed it or because the test died, this
# ends, and the kernel takes every process and every mount with it.
set -eu
mountpoint=$1 tree=$2 size=$3

mount --make-rprivate /
mount -t proc proc /proc
# What nspawn keeps below /run (locks, propagated mounts) stays in here too.
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o "mode=0755,size=$size" machine "$mountpoint"
mkdir "$mountpoint"/{upper,work,root}
mount -t overlay -o "lowerdir=$tree,upperdir=$mountpoint/upper,workdir=$mountpoint/work" machine "$mountpoint/root"

while read -r; do
	# The unified hierarchy, whatever the host has; no registration, since
	# the host may run another init; no link to the host's network.
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 \
		systemd-nspawn --quiet --boot --register=no --keep-unit --private-network \
		--console=pipe --resolv-conf=off --timezone=off --link-journal=no \
		--machine=lab --directory="$mountpoint/root" </dev/null &
done
