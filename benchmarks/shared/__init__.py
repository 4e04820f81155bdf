"""One workload from several processes whose limits are counted in one store."""
