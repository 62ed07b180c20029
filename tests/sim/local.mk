# tests/sim/
