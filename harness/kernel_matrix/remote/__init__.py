"""Where guests run: on this machine, or on others over ssh.

Not here: what they run.
"""
