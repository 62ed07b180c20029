#!/bin/bash
exec "$top_srcdir/tests/style/check-style"
