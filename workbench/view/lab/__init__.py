"""The reward lab: what a person writes, on what it is tried, what came of it. Reward code runs in the killable pool only, never here."""
