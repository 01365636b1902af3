"""The run folder: created and found (`folder`), written by the worker (`writer`, `checkpoints`), read by dashboard,
command line and notebook (`reader`). Torch-free.
"""
