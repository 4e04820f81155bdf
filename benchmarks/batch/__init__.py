"""What a batch costs beside its calls: CPU time of a row, and memory of a million."""
