"""What is known of a manager, told to programs that watch: Prometheus, OpenTelemetry."""
