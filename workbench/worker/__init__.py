"""The process around a run: entry, heartbeat, signals, and the probes it answers. Started by launch/, imported by nobody."""
