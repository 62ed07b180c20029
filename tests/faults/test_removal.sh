#!/bin/bash
# A store's removal is killed, meets full storage, or the power is cut in it (TAP). These few
# steps are always tried all.
exec "${top_builddir:-.}/tests/faults/enumerate" --all --destroy --fs "${FAULT_FS:-xfs}" \
    kill cut full
