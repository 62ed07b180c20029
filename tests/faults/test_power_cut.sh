#!/bin/bash
# The target's power is cut: its file system, a real one on a loop device, loses what was not
# synced (TAP). FAULT_FS=ext4: that instead of XFS.
exec "${top_builddir:-.}/tests/faults/enumerate" "${FAULT_STEPS:---few=24}" \
    --fs "${FAULT_FS:-xfs}" cut
