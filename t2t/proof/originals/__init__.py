"""
What can run an original, one file for each library. All of it runs in the child process only: see `original.py`.

Nothing here imports t2t, and every library is imported where it is needed.
"""
