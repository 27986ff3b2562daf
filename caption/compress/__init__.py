"""Compresses a folder of images into a new one: smaller files, the same captions."""
