"""Alarms: rules over recorded metrics, by family, with evidence and remedies; `Watch` applies them after every step."""
