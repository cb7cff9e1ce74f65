"""Stands for the extension whose presence says that Apex's fused norms were built."""
