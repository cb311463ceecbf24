#!/bin/sh
# What libFuzzer needs of the compiler, for our own packages alone (RUSTC_WORKSPACE_WRAPPER): which edges ran, and what
# was compared with what. All of it is in stable rustc.
exec "$@" \
    -Ccodegen-units=1 \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
