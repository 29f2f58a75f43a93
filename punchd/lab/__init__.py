"""The lab: a small Internet to punch through, in network namespaces and in virtual time.

It is no part of the product: nothing outside this folder imports it.
"""
