# Every test in a process of its own, the verdicts on the second serial port, which no kernel message ever reaches.
# `plain`: under busybox, in /suites. `systemd`: under systemd, in /suites-systemd, and the machine ends afterwards.

export PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp

# Longer than any test may take; nextest gives the same on a host.
TEST_SECONDS_MAX=120

report() {
    echo "$@" >/dev/ttyS1
}

seconds() {
    cut -d' ' -f1 /proc/uptime
}

run_test() {
    path=$1 suite=${1##*/} test=$2
    begun=$(seconds)
    PLIMSOLL_VM=1 PLIMSOLL_REQUIRE=v2 PLIMSOLL_BIN=/bin/plimsoll RUST_BACKTRACE=1 \
        timeout -s KILL "$TEST_SECONDS_MAX" "$path" --exact "$test" --nocapture \
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

run_all() {
    filter=$(cat /etc/filter)
    for path in "$1"/*; do
        for test in $("$path" --list --format terse | sed -n 's/: test$//p' | grep -F -e "$filter"); do
            run_test "$path" "$test"
        done
    done
}

finish() {
    report end
    if [ -n "$(cat /etc/keep)" ]; then
        echo 'The suites are done. `poweroff -f` ends the machine.'
        setsid cttyhack sh
    fi
    poweroff -f
}

case $1 in
plain)
    run_all /suites
    # Without any for systemd this is the end.
    [ -e /suites-systemd ] || finish
    ;;
systemd)
    run_all /suites-systemd
    finish
    ;;
esac
