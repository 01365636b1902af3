"""Everything that runs in the fork-server and in the jobs it forks: the untrusted side of the sandbox.

Imported by a bare `python -I -S`-like interpreter under the name `inside`, so it uses the standard library
alone and names its own modules relatively.
"""
