#!/bin/bash
# kill -9 of the store's process, of its helpers and of all at once, and in the middle of a write
# (TAP). At some steps; FAULT_STEPS=--all: at every one.
exec "${top_builddir:-.}/tests/faults/enumerate" "${FAULT_STEPS:---few=20}" \
    kill torn kill-child kill-all
