#!/bin/busybox sh
# PID 1 of the test machine: pure cgroup v2, every test in a process of its own, the verdicts on the second serial port,
# which no kernel message ever reaches.

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

# Longer than any test may take; nextest gives the same on a host.
TEST_SECONDS_MAX=120

report() {
    echo "$@" >/dev/ttyS1
}

seconds() {
    cut -d' ' -f1 /proc/uptime
}

run_test() {
    suite=$1 test=$2
    begun=$(seconds)
    PLIMSOLL_VM=1 PLIMSOLL_REQUIRE=v2 PLIMSOLL_BIN=/bin/plimsoll RUST_BACKTRACE=1 \
        timeout -s KILL "$TEST_SECONDS_MAX" "/suites/$suite" --exact "$test" --nocapture \
        </dev/null >/run/output 2>&1
    status=$?
    took=$(echo "$(seconds) $begun" | awk '{ printf "%.2f", $1 - $2 }')
    # A binary that found no such test ends well, too.
    if [ "$status" = 0 ] && grep -q '^test result: ok\. 1 passed' /run/output; then
        echo "PASS [$took s] $suite $test"
        report "passed $suite $test"
    else
        cat /run/output
        echo "FAIL [$took s] $suite $test (exit $status)"
        report "failed $suite $test"
    fi
}

# The first line on the console, too: the host takes a machine that never says a word for one that hangs.
echo "the machine is up"
filter=$(cat /etc/filter)
report "kernel $(uname -r) $(grep cgroup2 /proc/mounts | cut -d' ' -f2) $(tr ' ' , </sys/fs/cgroup/cgroup.controllers)"
for path in /suites/*; do
    suite=${path##*/}
    for test in $("$path" --list --format terse | sed -n 's/: test$//p' | grep -F -e "$filter"); do
        run_test "$suite" "$test"
    done
done
report end

if [ -n "$(cat /etc/keep)" ]; then
    echo 'The suites are done. `poweroff -f` ends the machine.'
    setsid cttyhack sh
fi
poweroff -f
