"""The process around the training loop: entry, signals, error report, and the probes it replies to. Started by launch, imported by no room."""
