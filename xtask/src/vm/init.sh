#!/bin/busybox sh
# PID 1 of the test machine: pure cgroup v2. When its suites are done it becomes systemd, which runs the others.

/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
hostname vm
ip link set lo up

# The first line on the console, too: the host takes a machine that never says a word for one that hangs.
echo "the machine is up"
echo "kernel $(uname -r) $(grep cgroup2 /proc/mounts | cut -d' ' -f2) $(tr ' ' , </sys/fs/cgroup/cgroup.controllers)" \
    >/dev/ttyS1
sh /suites.sh plain
echo "the machine becomes systemd's"
exec /usr/lib/systemd/systemd --log-level=notice --log-target=console --show-status=0
