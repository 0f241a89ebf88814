"""Rules tried out: on files, on what the spool holds, on all of yesterday.

Decides as the gateway would, and changes nothing.  Must not know how results are shown.
"""
