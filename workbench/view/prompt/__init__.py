"""The Prompt view: one prompt on every visit. Drawn by prompt.js from the routes of view/group."""
