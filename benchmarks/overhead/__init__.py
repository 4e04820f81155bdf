"""What a call costs in CPU time, in multiples of a bare one."""
