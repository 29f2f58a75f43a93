"""Programs that punch as somebody else does, for bench/peers.py; each is run on both hosts of the lab.
None of them knows punchd.
"""
