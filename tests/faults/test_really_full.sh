#!/bin/bash
# A small file system that becomes full, at many places (TAP).
exec "${top_builddir:-.}/tests/faults/fill_up" ${FAULT_STEPS:+"$FAULT_STEPS"}
