#!/bin/bash
# kill -9 once more while what the first one left is being repaired (TAP).
exec "${top_builddir:-.}/tests/faults/enumerate" "${FAULT_STEPS:---few=20}" --twice torn
