"""The reward lab: reward code written in the browser, tried on samples. It runs in the killable reward pool only, never in the dashboard."""
