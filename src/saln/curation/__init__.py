"""Choosing once, offline, what a data set keeps."""
