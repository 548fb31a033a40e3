"""`runlane demo`: a broker, two workers and a job with a checkable end, each in a process of its own."""
