"""The run folder: made and found (`folder`), written by the worker (`writer`, `checkpoints`), read by
everything that looks (`reader`). Torch-free.
"""
