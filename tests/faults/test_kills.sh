#!/bin/bash
# kill -9 of the store's process, of its helpers and of all at once, and in the middle of a write
# (TAP). FAULT_STEPS=--all: at every step instead of one of each sort.
exec "${top_builddir:-.}/tests/faults/enumerate" ${FAULT_STEPS:+"$FAULT_STEPS"} \
    kill torn kill-child kill-all
