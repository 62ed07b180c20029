#!/bin/bash
# The storage becomes full at some step, and has space again later (TAP).
exec "${top_builddir:-.}/tests/faults/enumerate" "${FAULT_STEPS:---few=20}" full
